"""Takes the lines of the node loggers and counts them."""

import itertools

import shop

lines = itertools.count(1)


def take(_path, _body):
    return {"line": next(lines)}


shop.serve(8003, take)
