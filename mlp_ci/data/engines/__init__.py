"""What measures data: DuckDB embedded, SQL warehouses and Spark, behind :class:`mlp_ci.data.engine.Engine`."""
