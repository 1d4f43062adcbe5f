#!/usr/bin/env python3
"""fuzz.py [--seconds N] [--seed N] [--sessions N] [--round-seconds N] [--quiet-chaos]

Calls every function of the schemas event_queue* by every kind of role with
random and hostile arguments, in several sessions at once, inside random
transactions, while sessions are cancelled and terminated.  Run by "make fuzz"
against a private cluster; best on a server built with assertions.

It fails if the server or a worker crashes, if an error of class XX comes up (in
a session or in the log), if the log tells of a leak, if a statement outlives its
statement_timeout, or if the extension can't be dropped afterwards.

A run is a list of rounds, each with a new database.  The statements of a session
depend on the seed, the round and the session's number alone; how they interleave
does not.  Standard library only; libpq by ctypes.
"""
import argparse
import collections
import glob
import os
import random
import re
import sys
import threading
import time

import arguments
from libpq import Connection

HERE = os.path.dirname(os.path.abspath(__file__))
TIMEOUT = 3.0          # statement_timeout in seconds
GRACE = 12.0           # how much later a statement must have ended, on a busy machine
ROLES = ["fz_super", "fz_admin", "fz_producer", "fz_consumer", "fz_worker", "fz_observer", "fz_producer_a", "fz_consumer_a",
         "fz_worker_a", "fz_observer_a", "fz_plain", "fz_spare1", "fz_spare2", "fz_spare3"]
WEIGHTS = [4, 5, 2, 2, 3, 2, 2, 2, 2, 1, 1, 1, 1, 1]
# What leaves a store useless for the rest of its round is called seldom.
RARE = {"skip_positions", "new_generation", "open_guard", "drop_queue", "drain_queue", "drop_subscription", "create_event_partition",
        "split_event_partition", "set_event_partitioning", "archive_event_partition", "create_event_index", "drop_event_index", "purge_queue"}
# The tables whose rows the C code reads most, as UPDATEs of them tell most.
LIVELY = ["event_queue.job", "event_queue.queue", "event_queue.dead_letter", "event_queue.rule", "event_queue.schedule"]
LEAK = re.compile(r"\bleak|not closed|still referenced|still active|don't own|not owned|alloc set|past chunk end|non-empty SPI stack|"
                  r"AbortTransaction while|orphaned|page verification|non-existent lock|pin count", re.I)
CRASH = re.compile(r"TRAP: |PANIC: |terminated by signal|exited with exit code (?![01]\b)|stuck spinlock|reinitializing")
# Not faults of ours: what PostgreSQL itself says with a code of class XX.
NOT_OURS = [
    # a worker that waits for a table's lock while DROP EXTENSION commits
    r"event_queue (scheduler|executor|\S+ ?\S*) .*could not open relation with OID",
]

FUNCTIONS = """
SELECT p.oid, n.nspname, p.proname, p.prokind, p.proretset, p.prorettype::regtype, p.pronargdefaults,
	coalesce((SELECT string_agg(coalesce(nullif(a.name, ''), '?'), ',' ORDER BY a.ord) FROM unnest(
		coalesce(p.proargnames, '{}'), coalesce(p.proargmodes, array_fill('i'::"char", ARRAY[p.pronargs::int]))) WITH ORDINALITY a (name, mode, ord)
		WHERE a.mode IN ('i', 'b', 'v') AND a.ord <= greatest(p.pronargs, cardinality(p.proallargtypes))), ''),
	coalesce((SELECT string_agg(format_type(t.type, NULL), ',' ORDER BY t.ord) FROM unnest(p.proargtypes) WITH ORDINALITY t (type, ord)), ''),
	coalesce((SELECT string_agg(r.rolname, ',') FROM pg_roles r WHERE r.rolname LIKE 'fz%' AND has_function_privilege(r.oid, p.oid, 'EXECUTE')
		AND has_schema_privilege(r.oid, n.oid, 'USAGE')), '')
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname LIKE 'event\\_queue%' AND p.prokind IN ('f', 'p') AND n.nspname <> 'event_queue_archive'
ORDER BY n.nspname, p.proname, p.oid::regprocedure::text
"""


class Function:
    def __init__(self, row):
        (self.oid, self.schema, self.name, self.kind, retset, self.returns, defaults, names, types, roles) = row
        self.is_set = retset == "t"
        names = [n for n in names.split(",") if n]
        types = [t for t in types.split(",") if t]
        first_default = len(types) - int(defaults)
        self.arguments = [(n, t, i >= first_default) for i, (n, t) in enumerate(zip(names, types))]
        self.roles = set(roles.split(","))
        self.key = "%s(%s)" % (self.name if self.schema == "event_queue" else self.schema + "." + self.name,
                               ", ".join(t.replace(" with time zone", "tz").replace("event_queue.", "") for t in types))

    def call(self, r):
        """An expression or CALL of this function."""
        mode = r.choices(["good", "one bad", "wild"], [6, 3, 2])[0]
        bad = r.randrange(len(self.arguments)) if self.arguments and mode == "one bad" else -1
        shared, parts = {}, []
        for i, (name, kind, optional) in enumerate(self.arguments):
            if optional and i != bad and r.random() < (0.6 if mode != "wild" else 0.3):
                continue
            value = (arguments.good(r, self.name, name, kind, shared) if mode == "good" or (mode == "one bad" and i != bad)
                     else arguments.hostile(r, kind))
            # each has its type, so that overloads are told apart
            parts.append('"%s" => (%s)::%s' % (name, value, kind))
        return "%s.%s(%s)" % (self.schema, self.name, ", ".join(parts))

    def statement(self, r):
        call = self.call(r)
        if self.kind == "p":
            return "CALL " + call
        way = r.random()
        if way < 0.5:
            return "SELECT * FROM " + call
        if way < 0.7:
            return "SELECT " + call
        if way < 0.74:
            return "SELECT %s FROM generate_series(1, 3)" % call
        if way < 0.78:
            return "SELECT x FROM generate_series(1, 2) g, LATERAL (SELECT %s AS x LIMIT 1) y" % call
        if way < 0.82:
            return "DO $do$ BEGIN PERFORM %s; EXCEPTION WHEN OTHERS THEN IF SQLSTATE LIKE 'XX%%' THEN RAISE; END IF; END $do$" % call
        if way < 0.86:
            return "DO $do$ BEGIN PERFORM %s; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END $do$" % call
        if way < 0.89:
            return "BEGIN; DECLARE cur CURSOR FOR SELECT * FROM %s; FETCH 1 FROM cur; FETCH 2 FROM cur; %s" % (call, r.choice(["COMMIT", "ROLLBACK"]))
        if way < 0.91:
            return "EXPLAIN (ANALYZE, TIMING OFF) SELECT * FROM " + call
        if way < 0.93:
            return "PREPARE p%d AS SELECT * FROM %s" % (r.randrange(3), call)
        if way < 0.95:
            return "EXECUTE p%d" % r.randrange(3)
        if way < 0.97:
            return "SELECT count(*) FROM (SELECT %s AS x UNION ALL SELECT %s) y" % (call, call)
        return "SELECT %s IS NULL, %s IS NOT NULL" % (call, call)


class Findings:
    def __init__(self):
        self.lock, self.found = threading.Lock(), collections.OrderedDict()

    def add(self, kind, message, detail=""):
        key = kind + ": " + re.sub(r'"[^"]*"|\d+', "#", message)[:160]
        with self.lock:
            if key in self.found:
                self.found[key] += 1
                return
            self.found[key] = 1
        print("\nFINDING %s: %s\n%s\n" % (kind, message, detail), flush=True)


class LogReader(threading.Thread):
    """Follows the server's log; empties it when it grows, since it is only read here."""

    def __init__(self, path, fuzz):
        super().__init__(daemon=True)
        self.path, self.fuzz, self.stop, self.place = path, fuzz, threading.Event(), 0
        self.crashes, self.warnings, self.tail = 0, collections.Counter(), collections.deque(maxlen=60)
        self.rest = ""

    def read(self):
        with open(self.path, "rb") as f:
            f.seek(self.place)
            data = f.read()
        self.place += len(data)
        if self.place > 50_000_000:
            os.truncate(self.path, 0)
            self.place = 0
        text = self.rest + data.decode("utf-8", "replace")
        lines = text.split("\n")
        self.rest = lines.pop()
        for i, line in enumerate(lines):
            self.tail.append(line)
            if CRASH.search(line):
                self.crashes += 1
                pid = re.search(r"PID:? (\d+)", line)
                trap = "\n".join(lines[i:i + 30]) if "TRAP" in line else "\n".join(lines[max(0, i - 3):i + 3])
                self.fuzz.findings.add("crash", line[-300:], trap + "\n" + self.cores() + self.fuzz.history(pid and int(pid.group(1))))
            elif re.search(r" XX\w{3}: (ERROR|FATAL|PANIC|WARNING):", line):
                if not any(re.search(x, line) for x in NOT_OURS):
                    pid = re.search(r"\[(\d+)\]", line)
                    self.fuzz.findings.add("class XX in the log", re.sub(r"^.*? XX", "XX", line)[:400],
                                           "\n".join(x[-400:] for x in lines[i:i + 5]) + "\n" + self.fuzz.history(pid and int(pid.group(1))))
            elif "WARNING:" in line:
                message = line.split("WARNING:", 1)[1]
                self.warnings[re.sub(r'"[^"]*"|\d+', "#", message)[:120]] += 1
                if LEAK.search(message):
                    pid = re.search(r"\[(\d+)\]", line)
                    self.fuzz.findings.add("leak", message, line + "\n" + self.fuzz.history(pid and int(pid.group(1))))

    def cores(self):
        """Where the processes were of which there is a core file, if gdb is there to tell."""
        told = ""
        for core in glob.glob(os.path.join(os.path.dirname(self.path), "data", "core*")):
            told += os.popen("command -v gdb >/dev/null && gdb -batch -ex bt %s/postgres %s 2>/dev/null | grep '^#' | head -n 30" % (
                os.environ["PG_BINDIR"], core)).read()
            os.remove(core)
        return told

    def run(self):
        while not self.stop.wait(0.3):
            self.read()


class Session(threading.Thread):
    def __init__(self, fuzz, number):
        super().__init__(daemon=True)
        self.fuzz, self.number = fuzz, number
        self.r = random.Random("%s/%s/%s" % (fuzz.seed, fuzz.round, number))
        self.recent = collections.deque(maxlen=fuzz.args.history)
        self.since, self.conn, self.role, self.pid = None, None, None, None

    def run(self):
        while not self.fuzz.over():
            self.role = self.r.choices(ROLES, WEIGHTS)[0]
            options = "-c statement_timeout=%d -c lock_timeout=1000 -c client_min_messages=error -c default_transaction_isolation=%s" % (
                TIMEOUT * 1000, self.r.choice(["read\\\\ committed", "read\\\\ committed", "repeatable\\\\ read", "serializable"]))
            own = random.Random(self.r.random())      # one a connection: a lost one does not change what comes after
            try:
                self.conn = Connection(self.role, self.fuzz.database, options)
            except ConnectionError as e:
                if not self.fuzz.over() and "starting up" not in str(e) and "recovery" not in str(e):
                    self.fuzz.refused[str(e)[-100:]] += 1
                time.sleep(0.3)
                continue
            self.pid = self.conn.pid
            self.fuzz.pids[self.pid] = self
            self.recent.append("-- connected as %s, pid %d" % (self.role, self.pid))
            for _ in range(own.randint(10, 60)):
                if self.fuzz.over() or not self.step(own):
                    break
            self.conn.close()
            self.since = None

    def step(self, r):
        key, sql = self.fuzz.statement(r, self.role)
        extended = r.random() < 0.25 and ";" not in sql
        result = self.execute(key, sql, extended)
        # what to do about a failed transaction must not change the later statements
        if self.conn.alive() and self.fuzz.transaction_failed(self.conn):
            self.execute(None, "ROLLBACK TO sp" if r.random() < 0.3 else "ROLLBACK")
            if self.fuzz.transaction_failed(self.conn):
                self.execute(None, "ROLLBACK")
        if result.sqlstate == "-----" or not self.conn.alive():
            self.fuzz.lost(self, result)
            return False
        return True

    def execute(self, key, sql, extended=False):
        self.recent.append(sql)
        self.since = time.monotonic()
        result = self.conn.execute(sql, extended)
        took = time.monotonic() - self.since
        self.since = None
        self.recent[-1] += "  -- %s %s" % (result.sqlstate, result.message[:80].replace("\n", " "))
        self.fuzz.count(key, result)
        if result.sqlstate.startswith("XX") and not any(re.search(x, result.message) for x in NOT_OURS):
            self.fuzz.findings.add("class XX", "%s %s (%s)" % (result.sqlstate, result.message, result.place),
                                   "as %s: %s\n%s" % (self.role, sql[:3000], self.fuzz.history(self.pid)))
        if took > TIMEOUT + GRACE:
            self.fuzz.findings.add("late", "ended only after %.1f s: %s" % (took, key), "as %s: %s" % (self.role, sql[:3000]))
        return result


class Fuzz:
    def __init__(self, args):
        self.args, self.seed, self.round, self.end, self.round_end = args, args.seed, 0, 0, 0
        self.findings, self.refused = Findings(), collections.Counter()
        self.counts, self.lock = collections.defaultdict(collections.Counter), threading.Lock()
        self.pids, self.killed, self.sessions, self.statements = {}, set(), [], 0
        self.messages = {}
        self.log = LogReader(os.environ["EQ_SERVER_LOG"], self)

    def over(self):
        return time.monotonic() > self.round_end

    @staticmethod
    def transaction_failed(conn):
        import libpq
        return libpq._pq.PQtransactionStatus(conn.conn) == 3

    def count(self, key, result):
        with self.lock:
            self.statements += 1
            if key:
                self.counts[key][result.sqlstate] += 1
                self.messages.setdefault((key, result.sqlstate), result.message)

    def history(self, pid):
        """The last statements of the session with this backend, else of all."""
        session = self.pids.get(pid)
        if session:
            chosen = [session]
        else:
            chosen = list(self.sessions) if pid is None else []
        return "\n".join("  session %d (%s, pid %s), last statements:\n    %s" % (
            s.number, s.role, s.pid, "\n    ".join(x[:600] for x in list(s.recent)[-self.args.history:])) for s in chosen)

    def lost(self, session, result):
        if session.pid in self.killed or self.over():
            return
        time.sleep(1.0)      # the log tells of a crash first
        if self.log.crashes or session.pid in self.killed:
            return
        self.findings.add("connection lost", result.message[-300:], self.history(session.pid))

    def statement(self, r, role):
        way = r.random()
        if way < 0.16:
            return None, r.choices(["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN READ ONLY", "COMMIT", "ROLLBACK",
                                    "SAVEPOINT sp", "ROLLBACK TO sp", "RELEASE sp", "COMMIT AND CHAIN", "PREPARE TRANSACTION 'p%d'" % r.randrange(4),
                                    "COMMIT PREPARED 'p%d'" % r.randrange(4), "ROLLBACK PREPARED 'p%d'" % r.randrange(4)],
                                   [8, 2, 2, 1, 14, 5, 6, 4, 2, 1, 1, 2, 2])[0]
        if way < 0.20:
            name = r.choice(self.settings)
            value = r.choice(["DEFAULT", "'a'", "'b'", "''", "0", "1", "-1", "true", "false", "'x'", "2147483647", "'1ms'", "'ü'", "'00000000-0000-0000-0000-000000000000'"])
            return "SET", "%s %s = %s" % (r.choice(["SET", "SET LOCAL", "SET"]), name, value)
        if way < 0.22:
            return None, r.choice(["DISCARD ALL", "DISCARD PLANS", "RESET ALL", "SET debug_parallel_query = on" if self.version >= 160000 else "SET force_parallel_mode = on",
                                   "RESET SESSION AUTHORIZATION", "RESET ROLE", "SET plan_cache_mode = force_generic_plan", "SET search_path = event_queue, fuzz"] +
                            (["SET SESSION AUTHORIZATION " + r.choice(ROLES), "SET ROLE " + r.choice(ROLES)] if role == "fz_super" else ["SET ROLE fz_spare1"]))
        if way < 0.26:
            name = r.choice(self.relations)
            return "SELECT " + name, "SELECT * FROM %s LIMIT %d" % (name, r.choice([1, 10, 1000]))
        if way < (0.36 if role == "fz_super" else 0.30) and self.columns.get(role):
            return self.change(r, self.columns[role])
        allowed = self.allowed[role]
        for _ in range(10):
            f = r.choice(allowed) if allowed and r.random() < 0.85 else r.choice(self.functions)
            if not (f.name in RARE or f.returns == "trigger") or r.random() < 0.12:
                break
        return f.key, f.statement(r)

    @staticmethod
    def change(r, columns):
        """Plain DML: by who has the rights for it, and by a superuser who should not."""
        column = r.choice(sorted({c[0] for c in columns}) + [c for c in LIVELY if any(c == x[0] for x in columns)] * 3)
        table, column, kind = r.choice([c for c in columns if c[0] == column])
        value = arguments.hostile(r, kind) if r.random() < 0.7 else '"%s"' % column
        some = "ctid = ANY(ARRAY(SELECT ctid FROM %s LIMIT 2 OFFSET %d))" % (table, r.randrange(5))
        way = r.random()
        if way < 0.6:
            return "UPDATE " + table, 'UPDATE %s SET "%s" = %s WHERE %s' % (table, column, value, some)
        if way < 0.75:
            return "DELETE " + table, "DELETE FROM %s WHERE %s" % (table, some)
        # a copy of a row with another key and something odd in it
        rows = "SELECT (jsonb_populate_record(t, jsonb_build_object(%s, %s) || %s)).* FROM %s t OFFSET %d LIMIT 1" % (
            arguments.quote(column), value, arguments.js({k: r.randrange(10 ** 6) for k in ("job_id", "queue_id", "position")[:r.choice([1, 1, 1, 2, 3])]}),
            table, r.randrange(30))
        return "INSERT " + table, "INSERT INTO %s OVERRIDING SYSTEM VALUE %s" % (table, rows)

    def admin(self, database=None):
        return Connection("postgres", database or self.database, "-c client_min_messages=error -c statement_timeout=60000")

    def prepare(self):
        self.database = "fuzz%d" % self.round
        conn = self.admin("postgres")
        for role in ROLES + ["postgres"]:
            conn.execute("CREATE ROLE %s LOGIN %s" % (role, "SUPERUSER" if role == "fz_super" else ""))
        for sql in ("CREATE DATABASE " + self.database,):
            result = conn.execute(sql)
            if result.sqlstate != "00000":
                raise SystemExit("fuzz: %s: %s" % (sql, result.message))
        conn.close()
        conn = self.admin()
        with open(os.path.join(HERE, "setup.sql"), encoding="utf-8") as f:
            text = f.read()
        # statement by statement, since rules and queues must be committed before what follows uses them
        for sql in re.split(r";[ \t]*\n(?=\s*(?:--|/\*|CREATE|SELECT|GRANT|ALTER|SET|\Z))", text):
            if sql.strip():
                result = conn.execute(sql, keep_rows=True)
                if result.sqlstate != "00000" or result.rows == [["f"]]:
                    raise SystemExit("fuzz: setup failed: %s %s in\n%s" % (result.sqlstate, result.message, sql[:500]))
        self.functions = [Function(row) for row in conn.execute(FUNCTIONS, keep_rows=True).rows]
        self.allowed = {role: [f for f in self.functions if role in f.roles] for role in ROLES}
        self.version = int(conn.execute("SHOW server_version_num", keep_rows=True).rows[0][0])
        self.settings = [row[0] for row in conn.execute(
            "SELECT name FROM pg_settings WHERE name LIKE 'event\\_queue.%' AND context IN ('user', 'superuser') ORDER BY name", keep_rows=True).rows]
        self.relations = [row[0] for row in conn.execute(
            "SELECT oid::regclass FROM pg_class WHERE relnamespace::regnamespace::text LIKE 'event\\_queue%' AND relkind IN ('r', 'v', 'p') ORDER BY relname",
            keep_rows=True).rows]
        columns = conn.execute(
            "SELECT a.attrelid::regclass, a.attname, format_type(a.atttypid, NULL), has_any_column_privilege('fz_admin', c.oid, 'UPDATE') "
            "FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
            "WHERE c.relnamespace::regnamespace::text LIKE 'event\\_queue%' AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped "
            "ORDER BY c.relname, a.attnum", keep_rows=True).rows
        self.columns = {"fz_admin": [c[:3] for c in columns if c[3] == "t"], "fz_super": [c[:3] for c in columns]}
        if not self.functions or not self.allowed["fz_admin"] or not columns:
            raise SystemExit("fuzz: found no functions")
        conn.close()

    def watch(self):
        """Until the round's end: cancels and terminates at random, and looks for what hangs."""
        r = random.Random("%s/%s/chaos" % (self.seed, self.round))
        conn, next_kill = None, time.monotonic() + 2
        while not self.over() or any(s.is_alive() for s in self.sessions):
            time.sleep(0.15)
            try:
                if conn is None or not conn.alive():
                    conn = self.admin("postgres")
            except ConnectionError:
                time.sleep(0.5)
                continue
            now = time.monotonic()
            for s in self.sessions:
                since = s.since
                if since and now - since > TIMEOUT + GRACE and s.pid not in self.killed:
                    state = conn.execute("SELECT wait_event_type, wait_event, state, left(query, 200) FROM pg_stat_activity WHERE pid = %d" % s.pid, keep_rows=True).rows
                    self.findings.add("hang", "outlives its statement_timeout", "%s\n%s" % (state, self.history(s.pid)))
                    self.stack(s.pid)
                    self.killed.add(s.pid)
                    conn.execute("SELECT pg_terminate_backend(%d)" % s.pid)
            if now > self.round_end + 60:
                self.findings.add("hang", "a session did not end by its termination", self.history(None))
                break
            if self.args.quiet_chaos or self.over():
                continue
            busy = [s for s in self.sessions if s.since and now - s.since > 0.002]
            if busy and r.random() < 0.5:
                conn.execute("SELECT pg_cancel_backend(%d)" % r.choice(busy).pid)
            if now > next_kill:
                next_kill = now + r.uniform(1, 6)
                if r.random() < 0.7:
                    s = r.choice(self.sessions)
                    if s.pid:
                        self.killed.add(s.pid)
                        conn.execute("SELECT pg_terminate_backend(%d)" % s.pid)
                else:
                    conn.execute("SELECT pg_%s_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'event_queue%%' ORDER BY random() LIMIT 1"
                                 % r.choice(["cancel", "terminate"]))
        if conn:
            conn.close()

    @staticmethod
    def stack(pid):
        """Where a process that hangs is, if gdb is there to tell."""
        os.system("command -v gdb >/dev/null && gdb -p %d -batch -ex bt 2>/dev/null | grep '^#' | head -n 40" % pid)

    def finish(self):
        """After a round: the server answers, and all that was made can be dropped."""
        for _ in range(60):
            try:
                conn = self.admin()
                break
            except ConnectionError as e:
                error = str(e)
                time.sleep(1)
        else:
            self.findings.add("down", "no connection after the round: " + error, "\n".join(self.log.tail))
            return
        for sql in ["SELECT count(*) FROM event_queue.health()", "SELECT count(*) FROM event_queue.workers()"]:
            result = conn.execute(sql)
            if result.sqlstate != "00000":
                self.findings.add("after the round", "%s: %s %s" % (sql, result.sqlstate, result.message), "round %d" % self.round)
        for row in conn.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()", keep_rows=True).rows:
            conn.execute("ROLLBACK PREPARED '%s'" % row[0])
        for _ in range(5):       # who drops may lose a deadlock against a worker, and tries again
            result = conn.execute("DROP EXTENSION event_queue CASCADE")
            if result.sqlstate != "40P01":
                break
        if result.sqlstate != "00000":
            self.findings.add("after the round", "DROP EXTENSION: %s %s (%s)" % (result.sqlstate, result.message, result.place), "round %d" % self.round)
        conn.close()
        conn = self.admin("postgres")
        result = conn.execute("DROP DATABASE %s WITH (FORCE)" % self.database)
        if result.sqlstate != "00000":
            self.findings.add("after the round", "DROP DATABASE: %s %s" % (result.sqlstate, result.message), "round %d" % self.round)
        conn.close()

    def run(self):
        print("fuzz: seed %s, %d s, %d sessions" % (self.seed, self.args.seconds, self.args.sessions), flush=True)
        self.log.start()
        self.end = time.monotonic() + self.args.seconds
        self.round = self.args.first_round
        while time.monotonic() < self.end:
            try:
                self.prepare()
            except ConnectionError as e:
                self.findings.add("down", "no connection before round %d: %s" % (self.round, e), "\n".join(self.log.tail))
                break
            self.round_end = min(self.end, time.monotonic() + self.args.round_seconds)
            self.pids, self.sessions = {}, [Session(self, n) for n in range(self.args.sessions)]
            crashes = self.log.crashes
            for s in self.sessions:
                s.start()
            self.watch()
            for s in self.sessions:
                s.join(5)
            self.finish()
            time.sleep(0.5)
            self.log.read()
            print("fuzz: round %d over, %d statements so far, %d findings%s" % (
                self.round, self.statements, len(self.findings.found), ", server crashed" if self.log.crashes > crashes else ""), flush=True)
            self.round += 1
        self.log.stop.set()
        return self.report()

    def report(self):
        print("\nEach function: calls, calls that succeeded, errors by SQLSTATE")
        never = []
        for f in self.functions:
            c = self.counts.get(f.key, collections.Counter())
            print("%6d %6d  %-60s %s" % (sum(c.values()), c["00000"], f.key[:60],
                                         " ".join("%s:%d" % x for x in c.most_common(9) if x[0] != "00000")))
            if not c["00000"] and f.returns != "trigger":
                never.append((f.key, c.most_common(1)))
        print("\nOther statements")
        for key in sorted(k for k in self.counts if k not in {f.key for f in self.functions}):
            c = self.counts[key]
            print("%6d %6d  %-60s %s" % (sum(c.values()), c["00000"], key[:60], " ".join("%s:%d" % x for x in c.most_common(6) if x[0] != "00000")))
        if never:
            print("\nNever succeeded, so only their checks were tested:")
            for key, most in never:
                message = self.messages.get((key, most[0][0]), "") if most else "not called"
                print("  %s  %s" % (key, message[:120]))
        if self.log.warnings:
            print("\nWarnings in the server's log")
            for message, n in self.log.warnings.most_common(20):
                print("%6d %s" % (n, message))
        for message, n in self.refused.items():
            print("connection refused %d times: %s" % (n, message))
        print("\nfuzz: seed %s, %d statements, %d findings" % (self.seed, self.statements, len(self.findings.found)))
        for key, n in self.findings.found.items():
            print("  %5d x %s" % (n, key))
        return 1 if self.findings.found else 0


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seconds", type=float, default=60)
    p.add_argument("--seed", default=str(random.randrange(10 ** 9)))
    p.add_argument("--sessions", type=int, default=6)
    p.add_argument("--round-seconds", type=float, default=40)
    p.add_argument("--first-round", type=int, default=1, help="begin with this round of the seed")
    p.add_argument("--history", type=int, default=12, help="statements of a session that a finding shows")
    p.add_argument("--quiet-chaos", action="store_true", help="cancel and terminate nothing")
    sys.exit(Fuzz(p.parse_args()).run())


main()
