"""What deploy/ asks Prometheus for is what Twokey tells it, under the names that it has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import Metric

from bot.alertmanager import PATH
from bot.metrics import Metrics
from jobs.alert_table import RULES

DEPLOY = Path(__file__).parents[1] / "deploy"
NAME = re.compile(r"\b(?:twokey_[a-z0-9_]+|up)\b")
SELECTED = re.compile(r"\b(twokey_[a-z0-9_]+)\{([^}]*)\}")
GROUPED = re.compile(r"\bby \(([a-z, ]*)\)")
THRESHOLD = re.compile(r"([<>]=?|==) (\d+)$")


def rules() -> list[dict[str, Any]]:
    loaded = yaml.safe_load((DEPLOY / "prometheus/twokey.rules.yml").read_text())
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DEPLOY / "grafana/twokey.json").read_text())
    return loaded


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    """Everything that Prometheus is asked."""
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in panels() for target in panel["targets"])


def families() -> dict[str, Metric]:
    """What is exported, by the name that a sample of it has."""
    found: dict[str, Metric] = {}
    for family in Metrics().registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        for suffix in suffixes.get(family.type, ("",)):
            found[family.name + suffix] = family
    return found


def labels() -> dict[str, set[str]]:
    """The labels of each exported name."""
    metrics = Metrics()
    known: dict[str, set[str]] = {}
    for collector, names in metrics.registry._collector_to_names.items():
        for name in names:
            known[name] = {*getattr(collector, "_labelnames", ()), "le"}
    return known


def test_there_is_something_to_look_at() -> None:
    assert len(list(expressions())) > 40


def test_every_metric_that_is_asked_for_is_exported() -> None:
    known = {*families(), "up"}
    asked = {name for text in expressions() for name in NAME.findall(text)}
    assert asked - known == set()
    assert len(asked) > 30


def test_every_label_that_is_asked_for_is_one_of_its_metric() -> None:
    known = labels()
    for text in expressions():
        for name, selector in SELECTED.findall(text):
            assert set(re.findall(r"(\w+)=", selector)) <= known[name], text
        grouped = {each.strip() for found in GROUPED.findall(text) for each in found.split(",")}
        for name in set(NAME.findall(text)) - {"up"}:
            assert grouped <= known[name], text


def test_every_rule_says_what_is_wrong_and_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert {"summary", "action"} == set(rule["annotations"])
        assert rule["expr"].count("(") == rule["expr"].count(")")
        for span in (rule.get("for", "1m"), rule.get("keep_firing_for", "1m")):
            assert re.fullmatch(r"\d+[smhd]", span)


@pytest.mark.parametrize("rule", [rule for rule in rules() if rule["alert"] in RULES], ids=str)
def test_where_an_alert_has_the_name_of_ours_it_has_its_threshold_and_severity(
    rule: dict[str, Any],
) -> None:
    ours = RULES[rule["alert"]]
    assert f"twokey_node_{ours.metric}" in rule["expr"]
    assert rule["labels"]["severity"] == str(ours.severity)
    found = THRESHOLD.search(rule["expr"])
    assert found is not None
    if found[1] == ">":
        assert float(found[2]) == ours.fire
    else:
        assert float(found[2]) < ours.fire
        assert not ours.above


def test_the_guides_six_alerts_are_among_the_rules() -> None:
    six = {"PoolUsage", "ConnectionsWaiting", "SlowQueries", "ReplicationLag", "DiskUsage"}
    assert six | {"Deadlocks"} <= {rule["alert"] for rule in rules()}


def test_no_panel_lies_upon_another_or_beside_the_screen() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    numbers = [panel["id"] for panel in dashboard()["panels"]]
    assert len(numbers) == len(set(numbers))


def test_the_configurations_name_our_doors() -> None:
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    [job] = scraped["scrape_configs"]
    assert (job["job_name"], job["metrics_path"]) == ("twokey", "/metrics")
    assert all((DEPLOY / "prometheus" / name).exists() for name in scraped["rule_files"])
    told = yaml.safe_load((DEPLOY / "alertmanager/alertmanager.yml").read_text())
    [webhook] = told["receivers"][0]["webhook_configs"]
    assert webhook["url"].endswith(PATH)
    assert webhook["send_resolved"] is True
