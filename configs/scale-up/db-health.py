"""Answers GET /writable with 200 while the MariaDB of this machine can be written, else with 503: for lb's http check.

Usage: db-health.py ADDRESS PORT SOCKET
"""

import sys
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer

import pymysql

ADDRESS, PORT, SOCKET = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def state():
    try:
        connection = pymysql.connect(unix_socket=SOCKET, user="root", connect_timeout=1, read_timeout=1)
        try:
            with connection.cursor() as cursor:
                cursor.execute("select @@read_only")
                (read_only,) = cursor.fetchone()
        finally:
            connection.close()
    except pymysql.MySQLError as error:
        return 503, f"no database: {error.args[0]}"
    return (503, "read only") if read_only else (200, "writable")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        code, text = state() if self.path == "/writable" else (404, "no such page")
        body = (text + "\n").encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingTCPServer):
    """Not HTTPServer, which asks the DNS for its own name before it listens."""

    allow_reuse_address = True
    daemon_threads = True


Server((ADDRESS, PORT), Handler).serve_forever()
