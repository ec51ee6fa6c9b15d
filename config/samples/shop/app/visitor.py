"""Looks at the shop twice a second: ten pages over one connection, then with a new one."""

import http.client

import shop


class Visit:
    connection = None
    pages = 0

    def look(self):
        if self.connection is None or self.pages == 10:
            self.leave()
            self.connection = http.client.HTTPConnection(
                "ingress.shop.svc.cluster.local.", 80, timeout=shop.TIMEOUT_SECONDS
            )
        try:
            shop.request(self.connection, "GET", "/")
            self.pages += 1
        except BaseException:
            self.leave()
            raise

    def leave(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None
        self.pages = 0


shop.for_ever(0.5, Visit().look)
