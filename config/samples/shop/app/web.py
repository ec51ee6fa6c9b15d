"""The pages: products over a kept connection, the cart over a fresh one each time."""

import shop

catalog = shop.Kept("catalog.shop.svc.cluster.local.")


def page(_path, _body):
    return {
        "products": catalog.get("/products"),
        "cart": shop.call("cart.shop.svc.cluster.local.", "GET", "/cart"),
    }


shop.serve(8000, page)
