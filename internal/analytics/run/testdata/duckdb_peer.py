"""Answers SQL with DuckDB: one JSON object a line in, one a line out.

{"do": [statement, ...]}  runs statements and answers {}
{"ask": query}            answers {"rows": [[value, ...], ...]}
An error answers {"error": text}. Values are text, or null.
"""

import datetime
import json
import sys

import duckdb


def text(v):
    if v is None:
        return None
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, float):
        return repr(v)
    if isinstance(v, datetime.datetime):
        return v.strftime("%Y-%m-%d %H:%M:%S.") + "%03d" % (v.microsecond // 1000)
    return str(v)


connection = duckdb.connect(config={"threads": 1})
connection.execute("PRAGMA disable_optimizer")
for line in sys.stdin:
    try:
        order = json.loads(line)
        for statement in order.get("do", []):
            connection.execute(statement)
        answer = {}
        if "ask" in order:
            answer["rows"] = [[text(v) for v in row] for row in connection.execute(order["ask"]).fetchall()]
    except Exception as e:
        answer = {"error": str(e)}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
