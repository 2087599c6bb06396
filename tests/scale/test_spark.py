"""Spark's `mapInArrow` takes a reader as it is."""

import os
import sys

import pyarrow
import pyarrow.parquet
import pytest

from palam.scale.reader import BridgeReader, ReaderLoading
from palam.scale.work import Labelling

pyspark = pytest.importorskip("pyspark")


def test_a_reader_in_map_in_arrow(bridge, tmp_path, monkeypatch):
    from pyspark.sql import SparkSession
    from pyspark.sql.types import DoubleType, StringType, StructField, StructType

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    rows = pyarrow.table({"id": list(range(30)), "text": [f"the fox {i}" for i in range(30)]})
    pyarrow.parquet.write_table(rows, tmp_path / "texts.parquet")
    loading = ReaderLoading(device="cpu", dtype="fp32")
    reader = BridgeReader(str(bridge), Labelling(("good", "bad")), loading=loading)
    session = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    spark = session.getOrCreate()
    try:
        texts = spark.read.parquet(str(tmp_path / "texts.parquet"))
        added = [StructField("prediction", StringType())]
        added += [StructField(name, DoubleType()) for name in ("confidence", "good", "bad")]
        added += [StructField("error", StringType())]
        schema = StructType([*texts.schema.fields, *added])
        read = texts.mapInArrow(lambda batches: map(reader, batches), schema)
        result = sorted((row.asDict() for row in read.collect()), key=lambda row: row["id"])
    finally:
        spark.stop()
    expected = reader(rows).to_pylist()
    assert [row["prediction"] for row in result] == [row["prediction"] for row in expected]
    assert [row["error"] for row in result] == [None] * 30
