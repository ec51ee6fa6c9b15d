"""The carts, in Redis (a pool of kept connections). Every fifth order is charged at the payment provider."""

import itertools
import os
import threading

import redis

import shop

store = redis.Redis(
    host="redis.data.svc.cluster.local.",
    socket_timeout=shop.TIMEOUT_SECONDS,
    socket_connect_timeout=shop.TIMEOUT_SECONDS,
)
orders = itertools.count()
PAYMENT_HOST = os.environ["PAYMENT_HOST"]
PAYMENT_PORT = int(os.environ["PAYMENT_PORT"])


def cart(_path, _body):
    items = store.incr("items")
    if next(orders) % 5 == 0:
        # Nobody waits for the payment: the shop works also where the provider cannot be reached.
        threading.Thread(target=charge, daemon=True).start()
    return {"items": items}


def charge():
    try:
        shop.call(PAYMENT_HOST, "POST", "/charge", b"{}", PAYMENT_PORT)
    except Exception as error:
        shop.log(f"payment: {type(error).__name__}: {error}")


shop.serve(8002, cart)
