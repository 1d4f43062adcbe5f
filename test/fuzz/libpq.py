"""The few calls of libpq that the fuzzer needs, by ctypes: the library is where
the server is, and nothing else has to be installed."""
import ctypes
import glob
import os
import subprocess


def _load():
    pg_config = os.environ.get("PG_CONFIG") or os.path.join(os.environ["PG_BINDIR"], "pg_config")
    libdir = subprocess.check_output([pg_config, "--libdir"], text=True).strip()
    for path in glob.glob(os.path.join(libdir, "libpq.so.5")) + ["libpq.so.5"]:
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    raise SystemExit("fuzz: found no libpq.so.5")


_pq = _load()
_p, _s, _i = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
for _name, _result, _arguments in [
        ("PQconnectdb", _p, [_s]), ("PQstatus", _i, [_p]), ("PQexec", _p, [_p, _s]),
        ("PQexecParams", _p, [_p, _s, _i, _p, _p, _p, _p, _i]),
        ("PQresultStatus", _i, [_p]), ("PQresultErrorField", _s, [_p, _i]), ("PQerrorMessage", _s, [_p]),
        ("PQclear", None, [_p]), ("PQfinish", None, [_p]), ("PQbackendPID", _i, [_p]),
        ("PQtransactionStatus", _i, [_p]), ("PQntuples", _i, [_p]), ("PQnfields", _i, [_p]),
        ("PQgetvalue", _s, [_p, _i, _i]), ("PQgetisnull", _i, [_p, _i, _i])]:
    _f = getattr(_pq, _name)
    _f.restype, _f.argtypes = _result, _arguments

COMMAND_OK, TUPLES_OK = 1, 2


class Result:
    """What one statement gave: rows, or sqlstate, message and place."""

    def __init__(self, handle, conn, keep_rows):
        self.rows, self.sqlstate, self.message, self.place = [], None, "", ""
        status = _pq.PQresultStatus(handle) if handle else -1
        if status in (COMMAND_OK, TUPLES_OK):
            self.sqlstate = "00000"
            if keep_rows:
                fields = range(_pq.PQnfields(handle))
                for row in range(_pq.PQntuples(handle)):
                    self.rows.append([None if _pq.PQgetisnull(handle, row, f)
                                      else _pq.PQgetvalue(handle, row, f).decode("utf-8", "replace") for f in fields])
        else:
            def field(code):
                value = _pq.PQresultErrorField(handle, ord(code)) if handle else None
                return value.decode("utf-8", "replace") if value else ""
            self.sqlstate = field("C") or "-----"   # no code: the connection is gone
            self.message = field("M") or _pq.PQerrorMessage(conn).decode("utf-8", "replace").strip()
            self.place = ":".join(x for x in (field("R"), field("F"), field("L")) if x)
        if handle:
            _pq.PQclear(handle)


class Connection:
    def __init__(self, user, database, options=""):
        info = "user='%s' dbname='%s' options='%s' client_encoding=UTF8 application_name=fuzz connect_timeout=20" % (
            user, database, options)
        self.conn = _pq.PQconnectdb(info.encode())
        if _pq.PQstatus(self.conn) != 0:
            message = _pq.PQerrorMessage(self.conn).decode("utf-8", "replace").strip()
            self.close()
            raise ConnectionError(message)
        self.pid = _pq.PQbackendPID(self.conn)

    def execute(self, sql, extended=False, keep_rows=False):
        data = sql.encode("utf-8", "surrogateescape")
        if extended:
            handle = _pq.PQexecParams(self.conn, data, 0, None, None, None, None, 0)
        else:
            handle = _pq.PQexec(self.conn, data)
        return Result(handle, self.conn, keep_rows)

    def alive(self):
        return self.conn is not None and _pq.PQstatus(self.conn) == 0

    def close(self):
        if self.conn:
            _pq.PQfinish(self.conn)
            self.conn = None
