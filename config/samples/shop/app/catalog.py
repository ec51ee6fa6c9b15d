"""What is for sale: read from MariaDB over one connection that stays open."""

import threading

import pymysql

import shop

lock = threading.Lock()
database = None


def products(_path, _body):
    global database
    with lock:
        try:
            if database is None:
                database = pymysql.connect(
                    host="mariadb.data.svc.cluster.local.",
                    user="shop",
                    password="shop",
                    database="shop",
                    connect_timeout=shop.TIMEOUT_SECONDS,
                    read_timeout=shop.TIMEOUT_SECONDS,
                    autocommit=True,
                )
            with database.cursor() as cursor:
                cursor.execute("SELECT name, price FROM product ORDER BY name")
                return [{"name": name, "price": price} for name, price in cursor.fetchall()]
        except BaseException:
            if database is not None:
                database.close()
            database = None
            raise


shop.serve(8001, products)
