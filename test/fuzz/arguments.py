"""Arguments for the fuzzer: SQL expressions, by a parameter's name and type.

good() often makes a call succeed; hostile() is what nobody should pass."""
import json

TENANTS = ["a", "b"]
QUEUES = ["q1", "q2", "q3", "q4", 'qéü "x"']
TYPES = ["lead", "task", "deal"]
EVENT_TYPES = ["lead.moved", "task.moved", "deal.moved", "lead.created", "x"]
PATTERNS = ["lead.*", "**", "*.moved", "task.**", "deal.moved"]
JOB_NAMES = ["work", "bad", "other"]
ROLES = ["fz_spare1", "fz_spare2", "fz_spare3"]
HANDLERS = ["fuzz.handle", "fuzz.handle_result", "fuzz.handle_bad", "fuzz.handle_slow"]
REDUCERS = ["fuzz.reduce", "fuzz.reduce_null", "fuzz.reduce_bad"]
SETTINGS = {
    "lease": ["1 s", "30 s"], "stalled_interval": ["1 s", "5 s"], "max_stalled": [0, 2], "max_attempts": [1, 3],
    "backoff": ["fixed", "exponential"], "backoff_delay": ["10 ms", "1 s"], "backoff_max": ["1 min"],
    "backoff_jitter": [0, 0.5, 1], "keep_completed": ["1 hour", None], "keep_failed": ["1 day", None],
    "rate_limit": [10, None], "rate_interval": ["1 s"], "max_concurrency": [2, None], "sla": ["1 s", None],
    "fair": [True, False], "group_concurrency": [1, 3], "group_rate_limit": [5, None],
    "group_retry": ["block", "pass"], "durable": [True, False], "keep_completed_count": [3, None],
}

HOSTILE_TEXT = [
    "''", "' '", "'a'", "'*'", "'**'", "'.'", "'a..b'", "'rule-calls'", "'event_store'", "'pg_catalog'", "'public'",
    "'%s%n%I'", "'it''s \"quoted\" \\ $$'", "'; DROP TABLE event_queue.job; --'", "U&'\\FFFF'", "chr(1)", "chr(127)", "E'\\n\\t\\r\\b'",
    "'ÄÖÜ漢字🐘'", "chr(1114111)", "'a' || chr(776)", "repeat('x', 63)", "repeat('x', 64)", "repeat('x', 255)", "repeat('x', 256)",
    "repeat('ü', 128)", "repeat('🐘', 300)", "repeat('x', 100000)", "repeat('a.', 20000)", "repeat('*.', 3000)", "repeat('(', 5000)",
    "'0'", "'-1'", "'any'", "'no_stream'", "'99999999999999999999'", "'2147483647'", "'NaN'", "'infinity'", "'null'", "'true'", "'{}'",
    "'00000000-0000-0000-0000-000000000000'", "'22P02'", "'EQ001'", "'XX000'", "'00000'", "'* * * * *'", "'0 0 30 2 *'",
    "'*/0 * * * *'", "'99 * * * *'", "'UTC'", "'Europe/Berlin'", "'Nowhere/None'", "'1 hour'",
    "'(SELECT 1)'", "'true'", "'1/0'", "'pg_sleep(10) IS NULL'", "'$1'", "'event_type = ANY(ARRAY[''x''])'", "'count(*) > 0'",
    "'EXISTS (SELECT FROM event_queue.job)'", "'pg_catalog.abs'", "'fuzz.reduce'", "'fuzz.handle'", "'fuzz.see'", "'fuzz.t1'",
    "'event_queue.append'", "'a.b.c.d'", "'\"'", "'\"\".\"\"'",
]
HOSTILE_JSON = [
    "null", "true", "0", "-0.0", "1e308", "1e1000", "123456789012345678901234567890", '""', '"x"', "[]", "{}", "[null]", "[[]]", "[{}]",
    "[1, \"x\", null, {}]", '{"": ""}', '{"a": null}', '{"a": {"b": {"c": [1, 2, {"d": null}]}}}', '{"name": null}', '{"name": 1}',
    '{"name": {"name": "x"}}', '[{"name": ["x"]}]', '{"a": "\\u00e4\\ud83d\\udc18"}', '{"$.x": "$.data", "y": "$.", "z": "$.data.n.m.o"}',
    '{"event_type": 1}', '{"event_type": "**", "aggregate_type": null}', '{"data": []}', '{"data": {"n": 1}}', '{"data": null}', '{"tenant_id": "b"}',
    '[{"event_type": "x", "id": "no uuid"}]', '[{"event_type": "x", "event_data": "text", "metadata": []}]',
    '{"name": "x", "children": {}}', '{"name": "x", "children": [null]}', '{"name": "x", "children": [[{"name": "y"}]]}',
    '{"jobs": 1}', '{"lease": "infinity", "max_attempts": -1}', '{"lease": {}, "fair": "maybe"}', '{"backoff_intervals": [1, null]}',
    '{"name": "x", "delay": "infinity", "priority": 1e20, "depends_on": [null]}', '{"name": "x", "depends_on": "x", "unique_key": []}',
    '[{"aggregate_type": "lead", "aggregate_id": "x1", "expected_version": 1e30, "events": [{"event_type": "x"}]}]',
    '[{"aggregate_type": "lead", "aggregate_id": "x1", "expected_version": [], "events": {}}]',
    '[{"aggregate_type": null, "aggregate_id": 1, "events": [null]}]',
]
HOSTILE_JSON_SQL = [
    "(repeat('[', 3000) || repeat(']', 3000))::jsonb", "(repeat('{\"a\":', 2000) || '1' || repeat('}', 2000))::jsonb",
    "(repeat('{\"name\":\"x\",\"children\":[', 300) || '{\"name\":\"x\"}' || repeat(']}', 300))::jsonb",
    "(SELECT jsonb_agg(jsonb_build_object('name', 'x' || n)) FROM generate_series(1, 3000) n)",
    "(SELECT jsonb_agg(jsonb_build_object('event_type', 'x', 'event_data', n)) FROM generate_series(1, 2000) n)",
    "(SELECT jsonb_object_agg(n, n) FROM generate_series(1, 5000) n)", "to_jsonb(repeat('x', 2000000))",
    "jsonb_build_object('name', repeat('n', 300000))", "jsonb_build_object(repeat('k', 70000), 1)",
    "jsonb_build_array(jsonb_build_object('name', 'w', 'tenant_id', 'b', 'queue', 'rule-calls'))",
]
HOSTILE = {
    "smallint": ["0", "-1", "32767", "-32768"],
    "integer": ["0", "-1", "1", "65", "1000000", "2147483647", "-2147483648", "2147483646"],
    "bigint": ["0", "-1", "1", "99", "4294967296", "9223372036854775807", "-9223372036854775808", "9223372036854775806"],
    "double precision": ["0", "-1", "'NaN'::float8", "'infinity'::float8", "'-infinity'::float8", "1e308", "1e-308", "'-0'::float8", "2"],
    "boolean": ["true", "false"],
    "interval": ["'0'::interval", "'-1 s'::interval", "'1 us'::interval", "'100 years'::interval", "'178000000 years'::interval",
                 "'-178000000 years'::interval", "make_interval(secs => 9e12)", "make_interval(days => 2147483647)",
                 "make_interval(months => -2147483647, days => 2147483647)", "'1 mon -30 days'::interval", "'1 day -24 hours'::interval",
                 "make_interval(months => 2147483647, days => 2147483647, secs => 9e12)", "'1 ms'::interval", "'2 s'::interval"],
    "timestamp with time zone": ["'infinity'::timestamptz", "'-infinity'::timestamptz", "'epoch'::timestamptz", "'4713-01-01 BC'::timestamptz",
                                 "'294276-12-31 23:59:59.999999 UTC'::timestamptz", "now()", "now() + interval '1 us'", "'2100-02-28'::timestamptz"],
    "uuid": ["'00000000-0000-0000-0000-000000000000'::uuid", "'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid", "gen_random_uuid()"],
    "name": ["''::name", "'id'::name", "'quo\"ted id'::name", "'ctid'::name", "'tableoid'::name", "'........pg.dropped.2........'::name",
             "repeat('ü', 40)::name", "'xmin'::name", "'no column'::name"],
    "regclass": ["0::regclass", "'pg_class'::regclass", "'pg_authid'::regclass", "'event_queue.event_store'::regclass", "'event_queue.job'::regclass",
                 "'fuzz.v1'::regclass", "'fuzz.s1'::regclass", "999999::regclass", "4294967295::regclass", "'fuzz.t1_pkey'::regclass",
                 "'information_schema.tables'::regclass", "'fuzz.t2'::regclass", "1255::regclass", "'event_queue.job_history'::regclass"],
    "regrole": ["0::regrole", "999999::regrole", "4294967295::regrole", "'pg_monitor'::regrole", "10::regrole", "'fz_spare1'::regrole"],
    "regproc": ["0::regproc", "999999::regproc", "'now'::regproc"],
    "regprocedure": ["0::regprocedure", "999999::regprocedure", "'pg_catalog.now()'::regprocedure"],
    "oid": ["0::oid", "1::oid", "4294967295::oid"],
    "jsonpath": ["'$'::jsonpath"],
}


def quote(text):
    return "'" + text.replace("'", "''") + "'" if "\\" not in text else "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def js(value):
    return quote(json.dumps(value, ensure_ascii=False)) + "::jsonb"


def hostile_json(r):
    if r.random() < 0.25:
        return r.choice(HOSTILE_JSON_SQL)
    if r.random() < 0.3:
        return mutated(r)
    return quote(r.choice(HOSTILE_JSON)) + "::jsonb"


def mutated(r):
    """A good document with one value in it replaced by another kind of thing."""
    value = r.choice([jobs, flow, events, batch, settings, filter_, actions, lambda r: [{"name": "work", **job(r)}]])(r)
    bad = r.choice([None, True, -1, 1e300, "", "x" * 300, "infinity", [], {}, [None], {"a": 1}, "NaN", "-1 s", 2 ** 63])
    place, last = value, None
    while isinstance(place, (list, dict)) and place:
        key = r.choice(list(place)) if isinstance(place, dict) else r.randrange(len(place))
        last, place = (place, key), place[key]
        if r.random() < 0.4:
            break
    if last is None:
        return js(bad)
    last[0][last[1]] = bad
    if isinstance(last[0], dict) and r.random() < 0.2:
        last[0][r.choice(["tenant_id", "queue", "name", "id", "priority", "speed", ""])] = bad
    return js(value)


def hostile(r, kind):
    if r.random() < 0.15:
        return "NULL::" + kind
    if kind.endswith("[]"):
        base = kind[:-2]
        way = r.randrange(7)
        if way == 0:
            return "'{}'::" + kind
        if way == 1:
            return "'{NULL,NULL}'::" + kind
        if way == 2:
            one = hostile(r, base)
            return "ARRAY[[%s,%s],[NULL,NULL]]::%s" % (one, hostile(r, base), kind)
        if way == 3:
            return "(SELECT array_agg(x::%s) FROM (SELECT %s AS x FROM generate_series(1, %d)) y)" % (base, hostile(r, base), r.choice([1, 100, 20000]))
        if way == 4:
            return "('[5:6]={NULL,NULL}')::" + kind
        return "ARRAY[%s]::%s" % (",".join(hostile(r, base) for _ in range(r.randint(1, 5))), kind)
    if kind == "text":
        return r.choice(HOSTILE_TEXT)
    if kind == "jsonb":
        return hostile_json(r)
    if kind == "event_queue.event_store":
        return r.choice(["ROW(NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL)::event_queue.event_store", "fuzz.event(%d)" % r.randint(0, 30),
                         "jsonb_populate_record(NULL::event_queue.event_store, '{\"version\": -1, \"event_type\": \"lead.x\"}')",
                         "jsonb_populate_record(fuzz.event(0), '{\"event_data\": [1], \"metadata\": null, \"created_at\": \"infinity\"}')"])
    if kind in HOSTILE:
        return r.choice(HOSTILE[kind])
    return "NULL::" + kind


def aggregate(r):
    return "x%d" % r.randrange(7)


def event(r):
    e = {"event_type": r.choice(EVENT_TYPES)}
    if r.random() < 0.6:
        e["event_data"] = {"n": r.randrange(9)}
    if r.random() < 0.2:
        e["metadata"] = {"by": "fuzz"}
    return e


def events(r):
    return [event(r) for _ in range(r.randint(1, 4))]


def batch(r):
    return [{"aggregate_type": r.choice(TYPES), "aggregate_id": aggregate(r), "events": events(r)} for _ in range(r.randint(1, 3))]


def job(r):
    j = {"name": r.choice(JOB_NAMES)}
    for key, values in [("payload", [{}, {"n": 1}, "x"]), ("priority", [1, 5, 9]), ("delay", ["10 ms", "1 hour"]), ("group_key", ["g1", "g2"]),
                        ("unique_key", ["u1", "u2"]), ("max_attempts", [1, 5]), ("queue", QUEUES),
                        ("unique_mode", ["reject", "replace", "debounce", "throttle"]), ("unique_until", ["finished", "claimed"]),
                        ("unique_window", ["1 s"]), ("time_limit", ["5 s"]), ("backoff", ["fixed", "bull"]), ("backoff_delay", ["10 ms"]),
                        ("backoff_intervals", [["1 s", "2 s"]]), ("metadata", [{"by": "fuzz"}])]:
        if r.random() < 0.2:
            j[key] = r.choice(values)
    return j


def jobs(r):
    return [job(r) for _ in range(r.randint(1, 5))]


def flow(r, depth=0):
    f = job(r)
    if depth < 3 and r.random() < 0.7:
        f["children"] = [flow(r, depth + 1) for _ in range(r.randint(1, 3))]
    return f


def settings(r):
    return {k: r.choice(SETTINGS[k]) for k in r.sample(sorted(SETTINGS), r.randint(0, 4))}


def action(r):
    """One action of a rule, most often right."""
    text = r.choice(["{{aggregate_id}}", "$.aggregate_id", "{{data.n}}", "u1", "{{{{", "{{data.x.y}}"])
    return r.choice([
        {"enqueue": {**job(r), "queue": r.choice(QUEUES), "unique_key": text}}, {"enqueue": {"queue": r.choice(QUEUES), "name": "work", "delay": "1 s", "delay_from": r.choice(["event", "now"])}},
        {"call": {"function": r.choice(["fuzz.see", "fuzz.see_bad"]), "delay": "10 ms"}}, {"append": {"event_type": r.choice(EVENT_TYPES), "aggregate_id": text, "event_data": {"n": text}}},
        {"notify": {"channel": "ch1", "payload": r.choice([text, {"n": text}])}}, {"cancel": {"queue": r.choice(QUEUES), "unique_key": text}}])


def actions(r):
    return [action(r) for _ in range(r.randint(1, 4))]


def filter_(r):
    f = {}
    for key, values in [("event_type", PATTERNS), ("aggregate_type", TYPES), ("tenant_id", TENANTS), ("data", [{"n": 1}, {}])]:
        if r.random() < 0.35:
            f[key] = r.choice(values)
    return f


def payload(r):
    return r.choice([{}, {"n": 1}, {"n": [1, 2, {"m": None}]}, "text", 7])


def good(r, function, name, kind, shared):
    """An argument that may well be right; "shared" keeps a call's own choices
    together, such as a job and its token."""
    n = shared.setdefault("n", r.randrange(12))
    if name == "queue" or (name == "name" and function in ("alter_queue", "pause_queue", "resume_queue", "purge_queue", "drain_queue",
                                                            "drop_queue", "set_queue_paused", "queue_id_of")):
        return quote(r.choice(QUEUES + ["q5"]) if r.random() < 0.9 else "q6")
    if kind == "text" and name == "name":
        if function == "create_queue":
            return quote(r.choice(["q5", "q6", "q%d" % r.randrange(100)]))
        if "alert" in function:
            return quote(r.choice(["a1", "a2", "health", "a1:q1", "health:queue q1"]))
        if "rule" in function:
            return quote(r.choice(["r1", "r2", "r3", "r%d" % r.randrange(9)]))
        if "schedule" in function:
            return quote(r.choice(["c1", "c2", "c%d" % r.randrange(9)]))
        if "partition" in function:
            return "fuzz.partition(%d)" % r.randrange(4)
        if function.startswith("enqueue"):
            return quote(r.choice(JOB_NAMES))
        return quote(r.choice(["s1", "s2", "s3", "s%d" % r.randrange(9)]))
    def position():
        return r.choice(["0", "10", "50", "(fuzz.event(%d)).position" % n])
    by_name = {
        "tenant_id": lambda: r.choice(["NULL", "NULL", "'a'", "'a'", "'b'", "''"]),
        "job_name": lambda: quote(r.choice(JOB_NAMES)), "aggregate_type": lambda: quote(r.choice(TYPES)),
        "aggregate_id": lambda: quote(aggregate(r)), "event_type": lambda: quote(r.choice(EVENT_TYPES)),
        "event_pattern": lambda: quote(r.choice(PATTERNS)), "pattern": lambda: quote(r.choice(PATTERNS)),
        "job_id": lambda: "fuzz.dead(%d)" % n if "dead" in function else "fuzz.job(%d)" % n,
        "lease_token": lambda: "fuzz.token(%d)" % n, "job_ids": lambda: "fuzz.jobs(%d)" % n, "lease_tokens": lambda: "fuzz.tokens(%d)" % n,
        "depends_on": lambda: "ARRAY[fuzz.job(%d), fuzz.job(%d)]" % (n, r.randrange(12)),
        "role": lambda: quote(r.choice(ROLES)) + "::regrole", "table_name": lambda: "'event_store'" if kind != "regclass" else r.choice(["'fuzz.t1'::regclass", "'fuzz.t2'::regclass"]),
        "id_column": lambda: r.choice(["'id'", "'quo\"ted id'"]), "tenant_column": lambda: r.choice(["NULL", "'tenant'"]),
        "time_zone": lambda: r.choice(["'UTC'", "'Europe/Berlin'", "'America/Sao_Paulo'"]), "cron": lambda: r.choice(["'* * * * *'", "'*/5 3 * * 1-5'", "'0 0 29 2 *'"]),
        "group_retry": lambda: r.choice(["'block'", "'pass'"]), "backoff": lambda: r.choice(["NULL", "'fixed'", "'exponential'", "'bull'"]),
        "rule": lambda: quote(r.choice(["r1", "r2", "r3"])), "since": lambda: "now() - interval '1 h'", "look_back": lambda: "'1 h'::interval", "died_after": lambda: "now() - interval '1 h'",
        "look_at": lambda: str(r.choice([10, 1000])), "outcome": lambda: "NULL", "watermark": lambda: "NULL", "event_prefix": lambda: r.choice(["NULL", "'lead'"]),
        "unique_key": lambda: r.choice(["NULL", "'u1'", "'u2'"]), "group_key": lambda: r.choice(["NULL", "'g1'", "'g2'"]),
        "sqlstate": lambda: r.choice(["NULL", "'22012'"]), "level": lambda: r.choice(["'info'", "'warning'", "'error'"]), "indexed_by": lambda: quote(r.choice(["event_type", "aggregate_type", "tenant_id", "event_data"])),
        "condition": lambda: r.choice(["NULL", quote("event_data ? 'n'"), quote("(event_data ->> 'n')::int > 3"), "'true'"]),
        "archive_schema": lambda: r.choice(["NULL", "'fuzz'"]),
        "channel": lambda: r.choice(["'ch1'", "'Ch \"2\"'"]), "what": lambda: "'name'",
        "priority": lambda: str(r.randint(1, 9)), "max_jobs": lambda: str(r.choice([1, 1, 5, 50])), "max_events": lambda: str(r.choice([1, 1, 5, 50])), "buckets": lambda: str(r.choice([1, 4, 64])),
        "timeout": lambda: r.choice(["'10 ms'::interval", "'200 ms'::interval", "'1 min'::interval"]),
        "event_position": lambda: position(), "up_to_position": lambda: position(), "to_position": lambda: position(), "from_position": lambda: position(),
        "after_position": lambda: "(fuzz.event(%d)).position" % n, "after_time": lambda: "now()",
        "every": lambda: r.choice(["'1 month'::interval", "'1 hour'::interval"]), "keep": lambda: "'1 day'::interval", "keep_effects": lambda: r.choice(["true", "false"]),
        "from_version": lambda: str(r.randint(1, 4)), "to_version": lambda: r.choice(["NULL", str(r.randint(1, 6))]), "at_version": lambda: r.choice(["NULL", "1", "3"]),
        "event_id": lambda: "(fuzz.event(%d)).id" % n, "event": lambda: "fuzz.event(%d)" % n if kind != "jsonb" else "to_jsonb(fuzz.event(%d))" % n,
        "expected_version": lambda: (r.choice(["'any'", "'no_stream'"]) if kind == "text" else r.choice(["NULL", "0", "1", "9"])),
        "function": lambda: quote(r.choice(HANDLERS if "handler" in function else REDUCERS if "reducer" in function else ["fuzz.see", "fuzz.see_bad"])),
        "worker": lambda: "'w1'", "id": lambda: r.choice(["NULL", "gen_random_uuid()"]), "mapping": lambda: js({"id": "$.aggregate_id", "n": "$.data.n"}),
        "flow": lambda: js(flow(r)), "jobs": lambda: js(jobs(r)), "options": lambda: js({k: v for k, v in job(r).items() if k not in ("name", "payload", "queue")}) if r.random() < 0.7 else "NULL", "events": lambda: js(events(r)), "batch": lambda: js(batch(r)),
        "filter": lambda: js(filter_(r)), "settings": lambda: js(settings(r)), "metadata": lambda: js({"by": "fuzz"}),
        "actions": lambda: js(actions(r)) if r.random() < 0.5 else "NULL", "when_changed": lambda: r.choice(["NULL", "'{n}'", "'{n,m}'"]),
        "on_loop": lambda: r.choice(["'skip'", "'allow'"]), "start": lambda: r.choice(["'now'", "'beginning'", "'5'"]), "resume": lambda: r.choice(["'now'", "'catch_up'"]),
        "rule_order": lambda: str(r.randint(-1, 2)), "overlap": lambda: r.choice(["'allow'", "'skip'", "'queue_one'", "'queue_all'", "'cancel'"]),
        "catch_up": lambda: r.choice(["NULL", "'1 min'::interval", "'1 day'::interval"]), "jitter": lambda: r.choice(["NULL", "'0'::interval", "'1 s'::interval"]),
        "starts_at": lambda: r.choice(["NULL", "now() - interval '1 day'"]), "ends_at": lambda: r.choice(["NULL", "now() + interval '1 day'"]),
        "from_time": lambda: "now() - interval '3 h'", "to_time": lambda: "now() - interval '1 min'", "exclude": lambda: r.choice(["NULL", "ARRAY[current_date + 1]", "ARRAY[current_date, NULL]"]),
        "kind": lambda: r.choice(["'queue_depth'", "'oldest_waiting'", "'failure_rate'", "'dead_letters'", "'new_dead_letters'", "'sla'", "'slo_burn'", "'slo_burn_slow'", "'health'"]),
        "severity": lambda: r.choice(["NULL", "'info'", "'critical'"]), "clear_threshold": lambda: r.choice(["NULL", "0.1"]),
        "pending": lambda: "'0'::interval", "cool_down": lambda: "'0'::interval", "version": lambda: str(r.randint(1, 3)),
        "results": lambda: "NULL", "job_names": lambda: r.choice(["NULL", "'{work}'", "'{other,bad}'"]),
        "queue_id": lambda: str(r.randint(1, 6)), "subscription_id": lambda: str(r.randint(1, 4)), "owner": lambda: "'fz_plain'", "name": lambda: "'x'",
    }
    if name in by_name:
        return by_name[name]()
    by_type = {"jsonb": lambda: js(payload(r)), "integer": lambda: str(r.randint(1, 5)), "bigint": lambda: str(r.randint(0, 60)), "text": lambda: quote(r.choice(["x", "a", "lead"])),
               "interval": lambda: r.choice(["'1 s'::interval", "'1 min'::interval", "'50 ms'::interval"]), "boolean": lambda: r.choice(["true", "false"]),
               "double precision": lambda: "0.5", "timestamp with time zone": lambda: "now()", "interval[]": lambda: "ARRAY['1 s'::interval, '5 s']"}
    if kind in by_type:
        return by_type[kind]()
    return hostile(r, kind)
