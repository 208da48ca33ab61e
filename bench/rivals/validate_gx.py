"""The checks in Great Expectations 1.x on pandas frames, as its documentation does it.

The first argument may name several files, by commas; a check with a ``file`` concerns only that one.
"""

import json
import sys

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd

files, checks = sys.argv[1].split(","), json.loads(sys.argv[2])
TYPES = {"float": "float64", "int": "int64", "string": "str", "timestamp": "datetime64[us]"}
LARGEST = sys.float_info.max


def expectation(rule, column, value):
    match rule:
        case "rows":
            return gxe.ExpectTableRowCountToBeBetween(min_value=value)
        case "type":
            return gxe.ExpectColumnValuesToBeOfType(column=column, type_=TYPES[value])
        case "nulls":
            return gxe.ExpectColumnValuesToNotBeNull(column=column)
        case "finite":
            return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=-LARGEST, max_value=LARGEST)
        case "min":
            return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=value)
        case "max":
            return gxe.ExpectColumnValuesToBeBetween(column=column, max_value=value)
        case "in":
            return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=value)
        case "fresh":
            oldest = pd.Timestamp.now() - pd.Timedelta(days=value)
            return gxe.ExpectColumnMaxToBeBetween(column=column, min_value=oldest.to_pydatetime())
        case "key":
            return gxe.ExpectColumnValuesToBeUnique(column=column)


context = gx.get_context(mode="ephemeral")
context.variables.progress_bars = gx.data_context.types.base.ProgressBarsConfig(globally=False)
asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("frame")
batch = asset.add_batch_definition_whole_dataframe("batch")
count, failed = 0, []
for i, file in enumerate(files):
    suite = context.suites.add(gx.ExpectationSuite(name=f"suite {i}"))
    for check in [c for c in checks if c.get("file", i) == i]:
        made = expectation(check["rule"], check["column"], check["value"])
        made.meta = {"rule": check["rule"], "column": check["column"]}
        suite.add_expectation(made)
    wanted = gx.ValidationDefinition(name=f"definition {i}", data=batch, suite=suite)
    found = context.validation_definitions.add(wanted).run(batch_parameters={"dataframe": pd.read_parquet(file)})
    broken = [r.exception_info for r in found.results if r.exception_info.get("raised_exception")]
    if broken:
        sys.exit(str(broken[0]))
    count += len(found.results)
    failed += [[r.expectation_config.meta[k] for k in ("rule", "column")] for r in found.results if not r.success]
print(json.dumps({"checks": count, "failed": failed}))
