"""The demo application: counts visits in the database, and shows who served the page."""

import html
import os

import pymysql
from flask import Flask, Response, request

NAME = os.environ["APP_NAME"]
DATABASE = os.environ.get("APP_DATABASE", "10.80.2.100")

app = Flask(__name__)

PAGE = """<!doctype html>
<title>lb demo</title>
<link rel="stylesheet" href="/static/style.css">
<h1>Visit {visits}</h1>
<table>
<tr><td>web server</td><td>{web}</td></tr>
<tr><td>application server</td><td>{app}</td></tr>
<tr><td>database</td><td>{db}</td></tr>
</table>
"""


def visit(web):
    """Writes one visit and reads how many there are; returns that and the database's name."""
    connection = pymysql.connect(
        host=DATABASE, user="demo", password="demo", database="demo", autocommit=True,
        connect_timeout=1, read_timeout=2, write_timeout=2,
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute("insert into visits (web, app) values (%s, %s)", (web, NAME))
            cursor.execute("select last_insert_id(), @@report_host")
            return cursor.fetchone()
    finally:
        connection.close()


@app.get("/")
def page():
    web = request.headers.get("X-Web-Server", "nobody")
    try:
        visits, database = visit(web)
    except pymysql.MySQLError as error:
        text = f"no database: {error}\n"
        return Response(text, status=503, mimetype="text/plain", headers={"X-App-Server": NAME})
    text = PAGE.format(visits=visits, web=html.escape(web), app=NAME, db=html.escape(database))
    return Response(text, headers={"X-App-Server": NAME, "X-Database": database})


@app.get("/healthz")
def healthz():
    """This server works. The database is another tier's matter: without it no application server would be better."""
    return Response("ok\n", mimetype="text/plain")
