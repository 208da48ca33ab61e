"""From the SQL of the checks to the dialect of whatever runs it.

The checks are written once, in DuckDB's dialect, and SQLGlot translates. What databases do too differently for that
is written as a function ``mlp_…(…)``, and this table says what stands for it in each dialect.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlglot import exp

WRITTEN_IN = "duckdb"

# SQLAlchemy's names of databases → SQLGlot's names of dialects, where they differ.
DIALECT_OF = {
    "postgresql": "postgres",
    "mariadb": "mysql",
    "mssql": "tsql",
    "awsathena": "athena",
    "cockroachdb": "postgres",
}
_LIKE = {"redshift": "postgres", "materialize": "postgres", "databricks": "spark"}
_DIGITS = "[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?"

# _0, _1 stand for the arguments. Each is written in the dialect it is for.
_EVERYWHERE = {
    "mlp_nan": "lower(CAST(_0 AS VARCHAR)) = 'nan'",
    "mlp_infinite": "lower(CAST(_0 AS VARCHAR)) IN ('inf', '-inf', 'infinity', '-infinity')",
    "mlp_fraction": "_0 <> floor(_0)",
    "mlp_micros": "EXTRACT(EPOCH FROM _0) * 1000000",
    "mlp_double": "CAST(_0 AS DOUBLE)",
    "mlp_exact": "CAST(_0 AS DECIMAL(38, 0))",
    "mlp_matches": "regexp_full_match(_0, _1)",
    "mlp_quotient": "floor(_0 / _1)",
    "mlp_order": "_0",
    "mlp_text_whole": "CAST(CAST(_0 AS DECIMAL(38, 0)) AS VARCHAR)",
    "mlp_text_float": "CAST(_0 AS VARCHAR)",
    "mlp_text_bool": "CASE WHEN _0 THEN 'true' WHEN NOT _0 THEN 'false' END",
    "mlp_text_time": "CAST(CAST(_0 AS TIMESTAMP) AS VARCHAR)",
    "mlp_text_day": "CAST(CAST(_0 AS DATE) AS VARCHAR)",
    "mlp_text_other": "CAST(_0 AS VARCHAR)",
}
_POSTGRES = {
    "mlp_nan": "_0 = 'NaN'",
    "mlp_infinite": "_0 IN ('Infinity', '-Infinity')",
    "mlp_fraction": "_0 <> trunc(_0)",
    "mlp_micros": "CASE WHEN isfinite(_0) THEN EXTRACT(EPOCH FROM _0) * 1000000 END",
    "mlp_exact": "CAST(_0 AS NUMERIC)",
    "mlp_matches": "_0 ~ _1",
    "mlp_quotient": "DIV(_0, _1)",
    "mlp_order": '_0 COLLATE "C"',
    "mlp_text_whole": (
        "CASE WHEN abs(_0) < 9e18 THEN CAST(CAST(_0 AS BIGINT) AS TEXT) ELSE CAST(CAST(_0 AS NUMERIC) AS TEXT) END"
    ),
    # PostgreSQL writes 3 and 1e+15 where the others write 3.0 and 1000000000000000.0.
    "mlp_text_float": (
        "CASE WHEN abs(_0) < 1e16 AND _0 = trunc(_0) THEN CAST(CAST(_0 AS BIGINT) AS TEXT) || '.0' "
        "ELSE replace(lower(CAST(_0 AS TEXT)), 'infinity', 'inf') END"
    ),
    "mlp_text_time": "CAST(CAST(_0 AS TIMESTAMP) AS TEXT)",
    "mlp_text_day": "CAST(CAST(CAST(_0 AS TIMESTAMP) AS DATE) AS TEXT)",
}
_SQLITE = {
    "mlp_nan": "1 = 0",  # SQLite keeps a NaN as NULL
    "mlp_infinite": "_0 IN (9e999, -9e999)",
    "mlp_fraction": (
        "typeof(_0) = 'real' AND _0 BETWEEN -9007199254740992 AND 9007199254740992 AND _0 <> CAST(_0 AS INTEGER)"
    ),
    # Times are text in SQLite, and its own reading of floats is not exact: functions of the connection do it.
    "mlp_micros": "mlp_ci_micros(_0)",
    "mlp_double": "mlp_ci_double(_0)",
    "mlp_exact": "CAST(_0 AS REAL)",
    "mlp_matches": "mlp_ci_matches(_0, _1)",
    "mlp_quotient": "_0 / _1",
    "mlp_text_whole": "CAST(CAST(_0 AS INTEGER) AS TEXT)",
    "mlp_text_float": "mlp_ci_text(_0)",
    "mlp_text_bool": "CASE _0 WHEN 1 THEN 'true' WHEN 0 THEN 'false' END",
    "mlp_text_time": "mlp_ci_time(_0)",
    "mlp_text_day": "substr(mlp_ci_time(_0), 1, 10)",
    # A column's type is a wish in SQLite: each value has a type of its own.
    "mlp_read_float": "CASE WHEN typeof(_0) IN ('integer', 'real') THEN _0 END",
    "mlp_read_int": "CASE WHEN typeof(_0) IN ('integer', 'real') THEN _0 END",
    "mlp_read_string": "CASE WHEN typeof(_0) = 'text' THEN _0 END",
    "mlp_read_bool": "CASE WHEN typeof(_0) = 'integer' AND _0 IN (0, 1) THEN _0 END",
    "mlp_read_timestamp": "mlp_ci_time(_0)",
    "mlp_read_date": "mlp_ci_date(_0)",
}
_SPARK = {
    "mlp_nan": "isnan(_0)",
    "mlp_infinite": "_0 IN (CAST('Infinity' AS DOUBLE), CAST('-Infinity' AS DOUBLE))",
    "mlp_fraction": "_0 % 1 <> 0",
    "mlp_micros": "UNIX_MICROS(CAST(_0 AS TIMESTAMP))",
    "mlp_matches": "_0 RLIKE _1",
    "mlp_quotient": "_0 DIV _1",
    # Java writes 1.0E7; 22 digits behind the point hold every double from 1e-5 up.
    "mlp_text_float": (
        "CASE WHEN _0 = 0 OR abs(_0) >= 1e-5 AND abs(_0) < 1e16 THEN "
        "regexp_replace(regexp_replace(CAST(TRY_CAST(_0 AS DECIMAL(38, 22)) AS STRING), '0+$', ''), '[.]$', '.0') "
        "ELSE regexp_replace(regexp_replace(regexp_replace(replace(lower(CAST(_0 AS STRING)), 'infinity', 'inf'), "
        "'[.]0e', 'e'), 'e([0-9])', 'e+$1'), 'e-([0-9])$', 'e-0$1') END"
    ),
    "mlp_read_float": (
        f"CASE WHEN trim(_0) RLIKE '^({_DIGITS}|(?i)[+-]?(nan|inf|infinity))$' THEN TRY_CAST(_0 AS DOUBLE) END"
    ),
    "mlp_read_int": (
        f"CASE WHEN trim(_0) RLIKE '^{_DIGITS}$' AND TRY_CAST(_0 AS DECIMAL(38, 6)) % 1 = 0 "
        "THEN CAST(TRY_CAST(_0 AS DECIMAL(38, 6)) AS DECIMAL(38, 0)) END"
    ),
    "mlp_read_string": "_0",
    "mlp_read_bool": "TRY_CAST(_0 AS BOOLEAN)",
    "mlp_read_timestamp": "CASE WHEN _0 RLIKE '^ *[0-9]{4,6}-[0-9]{1,2}-[0-9]{1,2}' THEN TRY_CAST(_0 AS TIMESTAMP) END",
    "mlp_read_date": "CASE WHEN _0 RLIKE '^ *[0-9]{4,6}-[0-9]{1,2}-[0-9]{1,2}' THEN TRY_CAST(_0 AS DATE) END",
}
_TEMPLATES = {"postgres": _POSTGRES, "sqlite": _SQLITE, "spark": _SPARK}


def quoted(name: str) -> str:
    """An identifier, for SQL that :func:`translate` gets."""
    from sqlglot import exp

    return exp.to_identifier(name, quoted=True).sql(dialect=WRITTEN_IN)


def literal(text: str) -> str:
    """A string, for SQL that :func:`translate` gets."""
    from sqlglot import exp

    return exp.Literal.string(text).sql(dialect=WRITTEN_IN)


def translate(sql: str, dialect: str) -> str:
    """The SQL of a check in another dialect."""
    import sqlglot

    tree = sqlglot.parse_one(sql, read=WRITTEN_IN)
    return written(tree, dialect)


def written(tree: exp.Expr, dialect: str) -> str:
    """A parsed query as text of a dialect. Changes ``tree``."""
    from sqlglot import exp

    # From the innermost on, so that arguments are already translated when they are put in.
    for call in reversed(list(tree.find_all(exp.Anonymous))):
        name = str(call.this).lower()
        if name == "mlp_percentile":
            # SQLGlot would make an estimate of it for Spark.
            call.set("this", "PERCENTILE_DISC")
        elif name.startswith("mlp_") and not name.startswith("mlp_ci_"):
            call.replace(_filled(_template(name, dialect), call.expressions))
    return tree.sql(dialect=dialect)


@cache
def _template(name: str, dialect: str) -> exp.Expr:
    import sqlglot

    own = _TEMPLATES.get(_LIKE.get(dialect, dialect), {})
    if name in own:
        return sqlglot.parse_one(own[name], read=dialect)
    return sqlglot.parse_one(_EVERYWHERE[name], read=WRITTEN_IN)


def _filled(template: exp.Expr, arguments: list[exp.Expr]) -> exp.Expr:
    from sqlglot import exp

    def fill(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Column) and node.name.startswith("_") and node.name[1:].isdigit():
            return exp.paren(arguments[int(node.name[1:])].copy(), copy=False)
        return node

    return exp.paren(template.transform(fill), copy=False)
