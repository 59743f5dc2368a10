"""What the addresses take and give, as the OpenAPI description has it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from regraft.serving.bodies import Asked
from regraft.serving.limits import Access

OPEN = frozenset(
    {"/", "/healthz", "/readyz", "/openapi.json"}
)  # without a token: they tell nothing of a model


class Settings(BaseModel):
    """What a caller of /predict may ask for, in the query."""

    model_config = ConfigDict(extra="forbid")
    model: Annotated[str | None, Field(description="a name of /models; the first where none is given")] = None
    top: Annotated[int | None, Field(ge=1, le=1_000_000, description="so many of the probabilities")] = None
    precision: Annotated[
        float | None,
        Field(
            gt=0, lt=1, allow_inf_nan=False, description="one of the model's `precisions`: then `sure` is set"
        ),
    ] = None
    explain: Annotated[bool, Field(description="also where the model looked")] = False


class Look(BaseModel):
    """Where the model looked: the item, and what its answer rests on laid over it, as data URIs."""

    label: str
    probability: float
    hidden: Annotated[
        float, Field(description="the probability that is left with the strongest place hidden")
    ]
    picture: str
    map: str


class Answer(BaseModel):
    """What the model says of one item, or the `error` why that could not be read."""

    source: str
    label: str | None
    probability: float | None
    probabilities: dict[str, float]
    labels: Annotated[list[str] | None, Field(description="of several labels at once, those that hold")]
    values: Annotated[dict[str, float] | None, Field(description="of numbers, these by name")]
    intervals: Annotated[
        dict[str, tuple[float, float]] | None,
        Field(description="where each number lies, as often as the model promises"),
    ]
    error: str | None
    sure: Annotated[bool | None, Field(description="whether the precision asked for is promised")]
    familiarity: Annotated[
        float | None,
        Field(description="0 to 100: the share of training examples that lie nearer to the others"),
    ]
    note: Annotated[str, Field(description="what else is to be known of the answer; mostly nothing")]
    unfamiliar: Annotated[bool, Field(description="unlike anything the model was trained on")]
    look: Look | None = None


class Answers(BaseModel):
    """One answer an item, in the order they were sent."""

    model: str
    predictions: list[Answer]


class About(BaseModel):
    """One of the models."""

    name: str
    modality: str
    noun: str
    task: str
    question: str
    classes: list[str]
    precisions: list[float]
    looks: Annotated[bool, Field(description="whether it can be told where it looked: of probabilities only")]
    unit: str
    most: Annotated[int, Field(description="the largest item that is taken, in this unit")]
    note: Annotated[str, Field(description="what to know of the model before it is used")] = ""


class Models(BaseModel):
    """The models, the usual one first."""

    models: list[About]


class State(BaseModel):
    """How the server is."""

    status: str


class Problem(BaseModel):
    """Why there is no answer; where items could not be read, why each."""

    error: str
    items: list[Answer] | None = None


WHY = {
    400: "the body is not what its Content-Type says, or broke off",
    401: "the token is missing or wrong",
    403: "asked by a page of another origin",
    404: "there is no such model",
    408: "the body came too slowly",
    413: "too large, or too many items",
    415: "a Content-Type that is not taken",
    421: "the Host header names another server",
    422: "no item could be read, or a setting is wrong",
    429: "the queue is full: come back after `Retry-After` seconds",
    503: "it took too long, or the server is stopping",
}
BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "file": {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "minItems": 1,
                        "description": "files, each with its name",
                    }
                },
                "required": ["file"],
                "additionalProperties": False,
            }
        },
        "application/json": {"schema": {"$ref": "#/components/schemas/Asked"}},
    },
}


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """For the description: the refusals of an address, beside those that any address may give."""
    return {code: {"model": Problem, "description": WHY[code]} for code in sorted({403, 421, *codes})}


def described(description: dict[str, Any], access: Access) -> dict[str, Any]:
    """A description with what cannot be told from the code: the body of /predict, and the token."""
    schemas = description["components"]["schemas"]
    asked = Asked.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(asked.pop("$defs"))
    schemas["Asked"] = asked
    if access.token is not None:
        description["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, methods in description["paths"].items():
            for method in methods.values():
                if path not in OPEN:
                    method["security"] = [{"token": []}]
    return description
