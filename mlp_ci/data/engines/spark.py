"""Opens files or a table on Spark and measures them there.

A session that is active is used, with its settings as they were afterwards; else one on this machine (``local[*]``) is
started and stopped. What Java writes goes into a file that is gone with it: a terminal gets our own words.
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
import shutil
import tempfile
import uuid
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mlp_ci.data.engines.duck_load import NULL_TEXTS
from mlp_ci.data.engines.measure_sql import Relation, SqlColumn
from mlp_ci.data.engines.sql_dialects import literal, quoted, translate
from mlp_ci.data.engines.sql_table import Answer, SqlTable
from mlp_ci.data.plan import PhysicalColumn
from mlp_ci.data.sources import Source, suffix_of
from mlp_ci.errors import InputError, MlpError, OutsideError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TABLE = "table:"
_PACKAGES = "pip install 'mlp-ci[spark]'"
_JAVA = "install Java 17 or newer (apt install openjdk-17-jre-headless), or set JAVA_HOME to where it is"
# What the SQL of the checks counts on; a session that was there before gets its own back.
_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "true",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.ansi.doubleQuotedIdentifiers": "false",
    # ${…} in a value of model.yaml is text.
    "spark.sql.variable.substitute": "false",
    "spark.sql.parser.escapedStringLiterals": "false",
    "spark.sql.parser.quotedRegexColumnNames": "false",
    # Rows of a CSV that are too short are found only where all columns are read.
    "spark.sql.csv.parser.columnPruning.enabled": "false",
    "spark.sql.legacy.percentileDiscCalculation": "false",
}
_FORMS = {
    "tinyint": "int",
    "smallint": "int",
    "int": "int",
    "bigint": "int",
    "float": "real",
    "double": "float",
    "string": "string",
    "boolean": "bool",
    "timestamp": "zoned",
    "timestamp_ntz": "timestamp",
    "date": "date",
}
_KINDS = {"real": "float", "decimal": "float", "zoned": "timestamp"}


@contextlib.contextmanager
def open_spark(
    source: str | Source, types: Mapping[str, str], others: Mapping[str, str | Source] | None = None
) -> Iterator[SqlTable]:
    """Open ``source``: a file, folder, glob or address of Parquet, CSV or JSON lines, or ``table:`` and a table's name.

    ``types`` says what the columns are declared as; ``others`` are opened beside it, each under the name by which
    checks call it. Raises InputError where pyspark or Java is missing and for what cannot be read.
    """
    with session() as spark, _settings(spark), _quiet():
        opened = _Opened(spark)
        try:
            data = opened.relation(source, types)
            beside = {name: opened.relation(other, types) for name, other in (others or {}).items()}
            yield SqlTable(opened.run, "spark", data, beside)
        finally:
            opened.close()


# ---------------------------------------------------------------- the session


def java() -> str:
    """Where Java is; empty where it is not."""
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").exists():
        return str(Path(home) / "bin" / "java")
    return shutil.which("java") or ""


@contextlib.contextmanager
def session() -> Iterator[Any]:
    """The Spark session that is active, or one on this machine that is stopped afterwards."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import sqlglot  # noqa: F401 (needed as soon as something is measured)
            from pyspark.sql import SparkSession
    except ImportError as error:
        what = f"the engine spark needs the package {error.name}, which is not installed"
        raise InputError(what, fix=_PACKAGES) from error
    active = SparkSession.getActiveSession()
    if active is not None:
        yield active
        return
    # Spark makes a folder for tables whether there are any or not.
    with tempfile.TemporaryDirectory(prefix="mlp-ci-spark-") as folder:
        started = _start(folder)
        try:
            yield started
        finally:
            started.stop()


class _Java:
    """The process that Spark runs in. It lives as long as Python does, so a second session uses it again."""

    gateway: Any = None


def _start(folder: str) -> Any:
    if not java():
        what = "the engine spark needs Java, which is not on this machine"
        raise InputError(what, fix=_JAVA)
    from pyspark import SparkConf, SparkContext
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    # None of what a cluster has: no pages, and no ports but loopback's.
    conf = SparkConf()
    for name, value in {
        "spark.app.name": "mlp-ci",
        "spark.master": "local[*]",
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": str(2 * (os.cpu_count() or 1)),
        "spark.sql.warehouse.dir": folder,
        "spark.ui.showConsoleProgress": "false",
    }.items():
        conf.set(name, value)
    with tempfile.TemporaryFile() as log, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if _Java.gateway is None:
                _Java.gateway = launch_gateway(conf, {"stdout": log, "stderr": log})
            return SparkSession(SparkContext(conf=conf, gateway=_Java.gateway))
        except Exception as error:
            raise _not_started(error, log) from error


def _not_started(error: Exception, log: IO[bytes]) -> MlpError:
    log.seek(0)
    told = log.read().decode(errors="replace")
    if "UnsupportedClassVersionError" in told or "UnsupportedClassVersionError" in str(error):
        return InputError("the Java on this machine is too old for Spark", fix=_JAVA)
    lines = [line for line in told.splitlines() if "rror" in line or "xception" in line]
    what = f"Spark does not start: {(lines or [_reason(error)])[0][:300]}"
    return OutsideError(what, fix="check the memory and JAVA_HOME; `spark-submit --version` tells more")


@contextlib.contextmanager
def _settings(spark: Any) -> Iterator[None]:
    before = {name: spark.conf.get(name, None) for name in _SETTINGS}
    for name, value in _SETTINGS.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, old)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """pyspark writes every query that Spark refuses to stderr, with Java's stack."""
    from pyspark.logger import PySparkLogger

    logger = PySparkLogger.getLogger("SQLQueryContextLogger")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _reason(error: BaseException) -> str:
    """The first line of what Spark says, without its code, the query and Java's stack."""
    text = str(getattr(error, "desc", None) or error)
    java_error = getattr(error, "java_exception", None)
    if java_error is not None:
        with contextlib.suppress(Exception):
            text = str(java_error.getMessage() or text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    first = re.sub(r"^\[[A-Z0-9_.]+\] ", "", first)
    return re.sub(r" SQLSTATE: \w+.*$", "", first)[:300]


# ---------------------------------------------------------------- what is read


class _Opened:
    """Views over what was opened, gone when it is closed."""

    def __init__(self, spark: Any) -> None:
        self._spark = spark
        self._views: list[str] = []

    def close(self) -> None:
        for view in self._views:
            self._spark.catalog.dropTempView(view)

    def run(self, sql: str, most: int) -> Answer:
        """Run a query; ``most`` rows of it, or all (0). Raises OutsideError where Spark refuses it."""
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

        try:
            frame = self._spark.sql(sql)
            names = tuple(frame.columns)
            # Python would move times to the zone of this machine.
            times = [field.dataType.typeName() == "timestamp" for field in frame.schema]
            if any(times):
                frame = frame.toDF(*(f"c{i}" for i in range(len(names))))
                columns = [frame[f"c{i}"] for i in range(len(names))]
                frame = frame.select(*(c.cast("string") if time else c for c, time in zip(columns, times, strict=True)))
            rows = frame.take(most) if most else frame.collect()
        except (PySparkException, Py4JError) as error:
            what = f"Spark refuses a query: {_reason(error)}"
            raise OutsideError(what, fix="mend what it names") from error
        return Answer(names, [tuple(row) for row in rows])

    def relation(self, source: str | Source, types: Mapping[str, str]) -> Relation:
        """The columns of what is opened; CSV is text until it is read as what it is declared."""
        shown = source.shown_as if isinstance(source, Source) else source
        declared = (source.types if isinstance(source, Source) else {}) or types
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

        try:
            frame, kind = self._frame(source, shown)
            columns = tuple(
                _column(f.name, f.dataType.simpleString(), kind, declared.get(f.name)) for f in frame.schema
            )
            view = f"mlp_ci_{uuid.uuid4().hex}"
            frame.createOrReplaceTempView(view)
        except (PySparkException, Py4JError) as error:
            what = f"{shown} cannot be read: {_reason(error)}"
            raise InputError(what, fix=f"mend or write {shown} again") from error
        self._views.append(view)
        return Relation(name=quoted(view), shown_as=shown, columns=columns, types=declared)

    def _frame(self, source: str | Source, shown: str) -> tuple[Any, str]:
        if isinstance(source, str) and source.startswith(TABLE):
            return self._spark.table(source.removeprefix(TABLE)), "table"
        paths, kind = _paths(source)
        read = self._spark.read
        match kind:
            case "csv":
                return self._csv(paths, shown), kind
            case "json":
                return read.option("mode", "FAILFAST").json(paths), kind
            case "parquet":
                return read.parquet(*paths), kind
        what = f"{shown} is in a format that Spark does not read"
        raise InputError(what, fix="write it as Parquet, CSV or JSON lines, or leave out `--engine spark`")

    def _csv(self, paths: Sequence[str], shown: str) -> Any:
        """All columns as text, where what means nothing is NULL, as it is for every engine."""
        from pyspark.sql.types import StringType, StructField, StructType

        first = self._spark.read.text(paths[0]).head()
        line = str(first[0]).removeprefix("\ufeff") if first else ""
        separator = "," if "," in line else max(";\t|", key=line.count)
        header = next(csv.reader([line], delimiter=separator), [])
        if not header:
            what = f"{shown} has no header"
            raise InputError(what, fix="write the names of the columns into its first line")
        names = [name.strip() or f"column{i}" for i, name in enumerate(header)]
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            what = f"the header names the column {twice!r} twice"
            raise InputError(what, fix="give every column a name of its own", file=shown, line=1)
        read = self._spark.read.option("header", True).option("sep", separator).option("escape", '"')
        read = read.option("mode", "FAILFAST").option("multiLine", True).option("enforceSchema", True)
        frame = read.schema(StructType([StructField(n, StringType()) for n in names])).csv(paths)
        view = f"mlp_ci_{uuid.uuid4().hex}"
        frame.createOrReplaceTempView(view)
        self._views.append(view)
        nothing = ", ".join(literal(t) for t in NULL_TEXTS)
        read_as = ", ".join(
            f"CASE WHEN {quoted(n)} IN ({nothing}) THEN NULL ELSE {quoted(n)} END AS {quoted(n)}" for n in names
        )
        return self._spark.sql(translate(f"SELECT {read_as} FROM {quoted(view)}", "spark"))


def _paths(source: str | Source) -> tuple[list[str], str]:
    """What Spark is to read, and its format. An address is Spark's own affair, a local path is looked at first."""
    if isinstance(source, str) and "://" in source:
        suffix = suffix_of(source.rstrip("/*"))
        kinds = {".csv": "csv", ".csv.gz": "csv", ".jsonl": "json", ".ndjson": "json"}
        return [source], kinds.get(suffix, "parquet")
    local = source if isinstance(source, Source) else Source.parse(source)
    if local.scheme:
        return list(local.files), local.format
    missing = next((f for f in local.files if not Path(f).exists()), None)
    if missing is not None:
        what = f"{local.shown_as} is not there"
        raise InputError(what, fix="correct the path")
    return [_exactly(Path(f)) for f in local.files], local.format


def _exactly(file: Path) -> str:
    """A path as Spark reads it: to Spark, a name with brackets or stars is a pattern."""
    return "file:" + re.sub(r"([][{}*?\\])", r"\\\1", str(file.resolve()))


def _column(name: str, shown: str, source: str, declared: str | None) -> SqlColumn:
    form = _FORMS.get(shown) or (
        "decimal" if shown.startswith("decimal") else "string" if shown.startswith(("varchar", "char")) else "other"
    )
    text = source == "csv" or (source == "json" and form == "string" and declared in ("timestamp", "date"))
    if not text:
        physical = PhysicalColumn(name=name, kind=_KINDS.get(form, form), shown=shown, nan=form in ("float", "real"))
        return SqlColumn(physical, form)
    # As what it is read decides how it is compared, as for the types that a file has.
    read_as = {"timestamp": "zoned"}.get(declared or "string", declared or "string")
    physical = PhysicalColumn(name=name, kind=_KINDS.get(read_as, read_as), shown="text", text=True)
    return SqlColumn(physical, read_as, written=True)
