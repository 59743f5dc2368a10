"""The server holds to its own OpenAPI description: requests drawn from it, right ones and wrong ones."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from asking import Caller
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from served import Running

pytest_plugins = ["served"]
FEW = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
# A string of base64 that is no picture holds to the description, and is refused all the same
BUT = ["positive_data_acceptance"]
REFUSALS = {"400", "401", "403", "404", "408", "413", "415", "421", "422", "429", "503"}
ASKED = [
    ("/predict", "POST"),
    ("/models", "GET"),
    ("/healthz", "GET"),
    ("/readyz", "GET"),
    ("/metrics", "GET"),
]


@pytest.mark.parametrize(("path", "method"), ASKED)
@pytest.mark.parametrize("mode", GenerationMode)
def test_what_is_drawn_from_the_description_is_answered_as_it_says(
    server: Running, path: str, method: str, mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.caller.port}/openapi.json")
    operation = schema[path][method]
    if mode is GenerationMode.NEGATIVE and path != "/predict":
        return  # without parameters nothing can be wrong
    seen, but = [], CHECKS.get_by_names(BUT)

    @given(case=operation.as_strategy(generation_mode=mode))
    @FEW
    def ask(case: Any) -> None:
        seen.append(case.call_and_validate(excluded_checks=but))

    ask()
    assert seen
    assert all(answer.status_code < 500 for answer in seen)


def test_the_description_names_all_addresses_and_refusals(caller: Caller) -> None:
    description = caller.get("/openapi.json").json
    methods = {(path, method.upper()) for path, about in description["paths"].items() for method in about}
    assert methods == set(ASKED)
    predict = description["paths"]["/predict"]["post"]
    assert set(predict["responses"]) >= REFUSALS
    assert set(predict["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
