"""An S3 server for tests: moto behind a front that counts, delays and fails requests as a test asks it to.

Prints its port; ends when its standard input does. `GET /-/weather?status=503&code=SlowDown&times=2&method=PUT&part=_delta_log&after=1`
makes the next two requests that fit answer so, `part` being somewhere in their path or query; with `after` the request is carried out
first, with `hold` it waits until the weather changes, and is then answered as always. `GET /-/requests` lists what came since.
"""

import os
import sys
import threading
import urllib.parse

import werkzeug.serving
from moto.server import DomainDispatcherApplication, create_backend_app

moto = DomainDispatcherApplication(create_backend_app)
lock = threading.Lock()
changed = threading.Condition(lock)
rules = []
requests = []


def steer(path, query):
    with lock:
        if path == "/-/requests":
            listed = "\n".join(requests)
            requests.clear()
            return listed
        given = dict(urllib.parse.parse_qsl(query))
        rules.clear()
        if given:
            rules.append({**given, "times": int(given.get("times", 1))})
        changed.notify_all()
        return ""


def matching(method, path, query):
    with lock:
        requests.append(f"{method} {path}")
        for rule in rules:
            if rule["times"] > 0 and method == rule.get("method", method) and rule.get("part", "") in f"{path}?{query}":
                rule["times"] -= 1
                return rule
    return None


def front(environ, start_response):
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    if path.startswith("/-/"):
        body = steer(path, environ.get("QUERY_STRING", "")).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    rule = matching(method, path, environ.get("QUERY_STRING", ""))
    if rule is not None and "hold" in rule:
        with lock:
            changed.wait_for(lambda: rule not in rules)
        rule = None
    if rule is None:
        return moto(environ, start_response)
    if "after" in rule:
        list(moto(environ, lambda *_: None))
    else:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    code = rule.get("code", "InternalError")
    body = f"<Error><Code>{code}</Code><Message>the weather is bad</Message></Error>".encode()
    start_response(f"{rule['status']} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


class Quiet(werkzeug.serving.WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


server = werkzeug.serving.make_server("127.0.0.1", 0, front, threaded=True, request_handler=Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
os._exit(0)
