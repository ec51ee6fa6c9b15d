CREATE DATABASE IF NOT EXISTS shop;
CREATE TABLE IF NOT EXISTS shop.product (name VARCHAR(40) PRIMARY KEY, price INT NOT NULL, stock INT NOT NULL);
INSERT IGNORE INTO shop.product VALUES ('compass', 40, 100), ('map', 12, 500), ('rope', 25, 80), ('tent', 210, 15);
CREATE USER IF NOT EXISTS 'shop'@'%' IDENTIFIED BY 'shop';
GRANT SELECT ON shop.* TO 'shop'@'%';
