"""Puts things that exist in the place of made-up ids, because otherwise every answer is 404.

A made-up id of the right form is replaced three times in four; the fourth asks for something that is not there. What a request would
delete is made for it alone. Ids of the wrong form stay as they are: they are meant to be wrong.
"""

import os
import re
import time
import zlib

import requests
import schemathesis

URL = os.environ["PORTCULLIS_URL"]
OPERATOR = {"X-Api-Key": os.environ["PORTCULLIS_OPERATOR_KEY"]}
OWNER = {"X-Api-Key": os.environ["PORTCULLIS_ORG_KEY"]}
ORG = os.environ["PORTCULLIS_ORG"]
# Of RFC 8032, 7.1, test 1.
PUBLIC_KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
# How often a thing is used before another takes its place, since requests change what they are sent to.
USES = 15

# The fields of bodies that hold ids.
IDS = ("plugin", "session", "sessionId")
ID = re.compile(r"\A(org|sess|plug|bind|key|dec|out|wh|pub)_[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")


def ask(method, path, body=None, headers=OWNER):
    return requests.request(method, URL + path, json=body, headers=headers, timeout=30)


def made(method, path, body, headers=OWNER):
    reply = ask(method, path, body, headers)
    for _ in range(100):
        # Another upload may be under way.
        if reply.status_code != 503:
            break
        time.sleep(0.1)
        reply = ask(method, path, body, headers)
    return reply.json() if reply.status_code in (200, 201, 202) else None


def session(kind="stopped"):
    """A session that is stopped, that shows a code, or that is linked and connected."""
    new = made("POST", "/api/v1/sessions", {"start": kind != "stopped"})
    if new and kind == "working":
        path = f"/api/v1/sessions/{new['id']}"
        ask("GET", f"{path}/qr")
        ask("POST", f"{path}/simulator:scan", {"phone": "628123456789"})
        for _ in range(100):
            if ask("GET", path).json().get("status") == "working":
                break
            time.sleep(0.1)
    return new


def message():
    """A message on its way, with its session."""
    of = session("working")
    text = {"type": "text", "to": "628555000111@s.whatsapp.net", "text": "hi"}
    sent = of and made("POST", f"/api/v1/sessions/{of['id']}/messages?async=true", text)
    return sent and {"id": sent["outboxId"], "session": of["id"]}


def org():
    return made("POST", "/api/v1/orgs", {"name": "Another"}, OPERATOR)


def key(owner):
    return made("POST", f"/api/v1/orgs/{owner}/keys", {"name": "k", "capabilities": ["read"]}, OPERATOR)


def plugin(name="delete-quota"):
    return made("POST", "/api/v1/plugins", {"catalog": name})


def binding():
    of = plugin()
    # It is bound without being asked: what policy does is tested elsewhere.
    return of and made("POST", "/api/v1/bindings", {"plugin": of["id"], "mode": "off", "settings": {}})


def webhook():
    return made("POST", "/api/v1/webhooks", {"url": "https://example.com/", "events": ["auth.qr"], "secret": "hush"})


def delivery(of):
    """What a webhook was told: that it is tried out."""
    return made("POST", f"/api/v1/webhooks/{of}:test", None)


def decision():
    found = ask("GET", "/api/v1/decisions?limit=1").json()["data"]
    return found[0] if found else None


def publisher():
    """A publisher, whose key signs nothing."""
    return made("POST", "/api/v1/publishers", {"name": "p", "publicKey": PUBLIC_KEY})


MAKERS = {"pub": publisher, "org": org, "plug": plugin, "bind": binding, "wh": webhook, "dec": decision}
pool = {}
uses = {}


def pooled(name, make):
    """A thing that exists, a new one now and then."""
    if uses.get(name, 0) % USES == 0:
        pool[name] = make() or pool.get(name)
    uses[name] = uses.get(name, 0) + 1
    return pool[name]


def fate(text):
    """A number that is the same for the same text in every run."""
    return zlib.crc32(text.encode())


def some_session(text, operation, deleting=False):
    """A session for an operation, in a state that depends on the text."""
    kind = ("stopped", "pairing", "working")[fate(text) // 4 % 3]
    return session(kind) if deleting else pooled(f"{operation} {kind}", lambda: session(kind))


def existing(text, operation="", owner=None, deleting=False):
    """The id of something that exists, or the text if it is to stay."""
    match = ID.match(text) if isinstance(text, str) else None
    if match is None or fate(text) % 4 == 0:
        return text
    kind = match.group(1)
    if kind == "sess":
        found = some_session(text, operation, deleting)
    elif kind == "key":
        found = owner and key(owner)
    elif kind == "plug" and deleting:
        # The other one is bound, so that it stays.
        found = plugin("rate-ladder")
    elif kind in MAKERS:
        found = MAKERS[kind]() if deleting else pooled(kind, MAKERS[kind])
    else:
        found = None
    return found["id"] if found else text


def prepare():
    """Room for all that is made, and a decision to be read."""
    room = dict.fromkeys(("sessions", "keys", "plugins", "bindings", "webhooks", "queuedMessages"), 1000000)
    ask("PATCH", f"/api/v1/orgs/{ORG}", {"quotas": room, "plan": {"name": "paid", "active": True}}, OPERATOR)
    watching = {"plugin": plugin()["id"], "mode": "monitor", "settings": {}}
    bound = made("POST", "/api/v1/bindings", watching)
    ask("DELETE", f"/api/v1/sessions/{session()['id']}")
    assert bound and decision(), "there is no decision to be read"
    ask("DELETE", f"/api/v1/bindings/{bound['id']}")


prepare()


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if not path_parameters:
        return path_parameters
    operation, deleting = context.operation.label, context.operation.method.upper() == "DELETE"
    mapped = dict(path_parameters)
    if "message" in mapped and all(ID.match(str(value)) for value in mapped.values()):
        found = pooled("message", message)
        # It is found below its own session.
        return {**mapped, "id": found["session"], "message": found["id"]} if found else mapped
    if "key" in mapped and "id" in mapped:
        # It is found below its own organisation.
        mapped["id"] = existing(mapped["id"])
        mapped["key"] = existing(mapped["key"], owner=mapped["id"])
        return mapped
    if "delivery" in mapped and "id" in mapped:
        # It is found below its own webhook.
        mapped["id"] = existing(mapped["id"])
        found = ID.match(str(mapped["id"])) and fate(str(mapped["delivery"])) % 4 and delivery(mapped["id"])
        return {**mapped, "delivery": found["id"]} if found else mapped
    for name, value in mapped.items():
        if name == "instance" and isinstance(value, str) and fate(value) % 4:
            mapped[name] = (some_session(value, operation, deleting) or {}).get("instanceName", value)
        else:
            mapped[name] = existing(value, operation, deleting=deleting)
    return mapped


@schemathesis.hook
def before_call(context, case, kwargs):
    """A key stands for one request, and what is generated uses the simplest ones over and over.

    What is asked to take its time takes none, because a run has only so much of it.
    """
    if isinstance(case.body, dict):
        for asked in (case.body, case.body.get("options")):
            if isinstance(asked, dict) and isinstance(asked.get("delay"), int) and asked["delay"] > 50:
                asked["delay"] = 50
    headers = case.headers or {}
    name = next((name for name in headers if name.lower() == "idempotency-key"), None)
    if name is not None and re.fullmatch(r"[ -~]{1,200}", str(headers[name])):
        uses["keys"] = uses.get("keys", 0) + 1
        case.headers[name] = f"{headers[name]}-{uses['keys']}"


@schemathesis.hook
def map_query(context, query):
    if not query:
        return query
    operation, deleting = context.operation.label, context.operation.method.upper() == "DELETE"
    mapped = dict(query)
    for name, value in query.items():
        if name == "org" and isinstance(value, str) and ID.match(value) and fate(value) % 4:
            mapped[name] = ORG
        elif name == "session":
            mapped[name] = existing(value, operation)
        elif name == "dry_run" and deleting and value in (True, "true"):
            # Whatever a DELETE is answered well to is taken for gone, and a dry run takes nothing away.
            mapped[name] = "false"
        elif name == "instance_id" and isinstance(value, str) and fate(value) % 4:
            mapped[name] = (some_session(value, operation, deleting) or {}).get("instanceId", value)
    return mapped


@schemathesis.hook
def map_body(context, body):
    if not isinstance(body, dict):
        return body
    mapped = {name: existing(value) if name in IDS else value for name, value in body.items()}
    if isinstance(mapped.get("catalog"), str) and fate(mapped["catalog"]) % 4:
        mapped["catalog"] = ("delete-quota", "grace-delete", "rate-ladder")[fate(mapped["catalog"]) % 3]
    return mapped
