"""The figures of a bundle's `report.json` that the page shows: accuracy, size, latency.

The report is the publisher's and may lack any of them, so everything here is looked for, nothing
is expected.
"""

from __future__ import annotations

from typing import Any, TypeGuard


def report_rows(report: Any) -> list[dict[str, str]]:
    """One row per variant; empty where the report says nothing that is understood."""
    variants = report.get("variants") if isinstance(report, dict) else None
    if not isinstance(variants, list):
        return []
    return [_row(variant) for variant in variants if isinstance(variant, dict)]


def _row(variant: dict[str, Any]) -> dict[str, str]:
    measured = variant.get("measured")
    p50 = measured.get("p50_us") if isinstance(measured, dict) else None
    size = variant.get("size")
    return {
        "name": str(variant.get("name", "?"))[:64],
        "float": _share(variant.get("accuracy_float")),
        "accuracy": _share(variant.get("accuracy")),
        "agreement": _share(variant.get("agreement")),
        "size": f"{size / 1000:.1f} kB" if _is_number(size) else "",
        "p50": f"{p50:.0f} µs" if _is_number(p50) else "",
    }


def _share(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("value")
    return f"{value:.2%}" if _is_number(value) else ""


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
