#!/usr/bin/env python3
"""Follows the change feed of pg_stock, for ever: prints each level that changed as a line of JSON.

    listener.py CONNECTION CURSOR_FILE        listener.py 'dbname=shop user=cache' /var/lib/shop/cursor

It needs psycopg2 and a role with stock.grant_access(role, 'read'). Put your own work in place of `tell`: whatever it is
told of it may be told again, but never of an older version after a newer one. What it was told is remembered in the
cursor file only after `tell` has returned: after a crash it is told again, and nothing is left out.
"""
import json
import os
import random
import select
import sys
import time

import psycopg2

HEARTBEAT = 5  # seconds; asks then even if nothing was heard, which also notices a dead connection
PAGE = 10_000  # ledger rows or levels in one call


class Follower:
    def __init__(self, connection, cursor_file, tell):
        self.dsn, self.cursor_file, self.tell = connection, cursor_file, tell
        self.versions = {}  # (sku, location) -> version, for what was told since the program began
        self.cursor = None
        self.sequence = None
        if os.path.exists(cursor_file):
            with open(cursor_file, encoding="utf-8") as file:
                self.cursor = file.read().strip() or None

    def follow_for_ever(self):
        pause = 0.1
        while True:
            try:
                self.connect()
                pause = 0.1
                self.follow()
            except psycopg2.Error as error:
                print(f"no connection, trying again: {error}".strip(), file=sys.stderr)
                # With jitter, so that a hundred listeners do not come back in the same moment.
                time.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(pause * 2, 30)

    def connect(self):
        self.db = psycopg2.connect(
            self.dsn, connect_timeout=5, keepalives_idle=5, keepalives_interval=2, keepalives_count=3,
            tcp_user_timeout=10_000, options="-c statement_timeout=60s")
        self.db.autocommit = True  # each call in a transaction of its own
        # First LISTEN, then catch up: what is committed in between is heard.
        self.query("LISTEN stock_changed")
        self.catch_up()

    def follow(self):
        heartbeat = time.monotonic() + HEARTBEAT
        while True:
            # What came during a query is there already.
            if not self.db.notifies:
                select.select([self.db], [], [], max(0, heartbeat - time.monotonic()))
                self.db.poll()
            for notification in self.take_notifications():
                try:
                    in_order = self.hear(json.loads(notification.payload))
                except (ValueError, TypeError, LookupError):
                    in_order = False  # anybody who can connect can send on the channel
                if not in_order:
                    self.catch_up()
            if time.monotonic() >= heartbeat:
                self.catch_up()
                heartbeat = time.monotonic() + HEARTBEAT

    def take_notifications(self):
        heard, self.db.notifies[:] = list(self.db.notifies), []
        return heard

    def hear(self, message):
        """Takes a message; False where it cannot be known that nothing is missing. Levels that were told of already, and
        those of another life of the database, are put right by catching up."""
        for level in message["levels"]:
            self.learn(level)
        if "sequence" not in message:  # told by the transaction itself: the next heartbeat moves the cursor
            return True
        if message["generation"] != self.cursor.split(":")[1]:
            return False  # another life of the database: its versions may be lower
        place = (message["sequence"], message["part"])
        if self.sequence is not None and place != self.sequence:
            self.sequence = None
            return False
        last = message["part"] == message["parts"]
        self.sequence = (place[0] + 1, 1) if last else (place[0], place[1] + 1)
        if last and "cursor" in message:
            self.keep(message["cursor"])
        return not last or "cursor" in message

    def catch_up(self):
        """Asks for what was missed, or for everything where the cursor is of another life of the database."""
        self.sequence = None  # the next message that is heard is the first that counts
        while self.cursor:
            *levels, closing = self.query("SELECT * FROM stock.changes_since(%s, %s)", self.cursor, PAGE)
            if closing["outcome"] == "resynchronise":
                break
            for level in levels:
                self.learn(level)
            self.keep(closing["next_cursor"])
            if closing["outcome"] == "caught_up":
                return
        self.versions.clear()
        page = None
        while True:
            *levels, closing = self.query("SELECT * FROM stock.snapshot(%s, %s)", page, PAGE)
            if closing["outcome"] == "resynchronise":
                page = None
                continue
            for level in levels:
                self.learn(level)
            page = closing["next_cursor"]
            if closing["outcome"] == "complete":
                return self.keep(page)

    def learn(self, level):
        at = (level["sku"], level["location"])
        if level["version"] > self.versions.get(at, 0):
            self.tell(level)
            self.versions[at] = level["version"]

    def keep(self, cursor):
        with open(self.cursor_file + ".new", "w", encoding="utf-8") as file:
            file.write(cursor)
            file.flush()
            os.fsync(file.fileno())
        os.replace(self.cursor_file + ".new", self.cursor_file)
        self.cursor = cursor

    def query(self, sql, *arguments):
        with self.db.cursor() as cursor:
            cursor.execute(sql, arguments)
            if cursor.description is None:
                return []
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row)) for row in cursor.fetchall()]


def tell(level):
    fields = ("sku", "location", "available", "on_hand", "reserved", "safety_stock", "waiting",
              "in_transit", "backorder_limit", "unsellable", "frozen", "on_sale_from",
              "on_sale_until", "version")
    # A level is not on sale before the one and from the other on, whatever is available.
    print(json.dumps({field: level.get(field) for field in fields}, default=str), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        Follower(sys.argv[1], sys.argv[2], tell).follow_for_ever()
    except KeyboardInterrupt:
        pass
