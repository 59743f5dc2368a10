"""The sections of a recipe, one for each step: every setting typed, with its default and the reason for it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Auto = Literal["auto"]
Folds = Annotated[int, Field(ge=0, le=20)]
Epochs = Annotated[int, Field(ge=0, le=100_000)]
Precision = Literal["float32", "bfloat16"]
EngineName = Literal[
    "torch-float32",
    "torch-bfloat16",
    "openvino-float32",
    "openvino-bfloat16",
    "torch-bfloat16-folded",
    "torch-bfloat16-compiled",
]
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # numpy and scikit-learn take 32 bits
Dropout = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """Settings that belong together: typed, frozen, each with its default and a `description` with the reason.

    The recipe has one for each step; a modality declares another for its own way of augmentation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("folds", check_fields=False)
    @classmethod
    def _several(cls, folds: int | str) -> int | str:
        if folds == 1:
            raise ValueError("one fold leaves nothing to train on; 5 are usual, 0 is none")
        return folds


class DataRecipe(Section):
    """What is asked of the examples, and how they are divided."""

    task: str = Field(
        "auto",
        description="kind of task; single: each example is of one class; multi: it has any number of labels; regression: "
        "numbers are told; auto: by what the labels are, single for names",
    )
    labels: list[str] = Field(
        [],
        description="columns of a table with 0 or 1 for each label, empty where it is not known: the task is multi",
    )
    targets: list[str] = Field(
        [],
        description="columns of a table with numbers to be told, empty where one is not known: the task is regression",
    )
    test_share: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="share held out for the one honest test, where none is given; 0: no test, said everywhere",
    )
    val_share: float = Field(
        0.15, gt=0, lt=1, description="share for early stopping and the final choice only"
    )
    folds: Folds = Field(
        0,
        description="cross-validation of the whole walk, for data too small to spare a test set; the model is made of all",
    )
    seed: Seed = Field(
        0, description="of the hash that splits; apart from run.seed, so repeats share one test set"
    )
    strict: bool = Field(
        False,
        description="stop before training where scores would flatter: near-duplicates or groups across splits, leaks, "
        "contradicting labels",
    )

    @model_validator(mode="after")
    def _one_answer(self) -> DataRecipe:
        if self.labels and self.targets:
            raise ValueError("labels and targets are two kinds of task: name the columns of one of them")
        if self.task == "single" and (self.labels or self.targets):
            raise ValueError("a task of kind single has one column `label`: leave labels and targets out")
        if (self.task == "regression" and self.labels) or (self.task == "multi" and self.targets):
            what = "labels are columns of 0 and 1" if self.labels else "targets are columns of numbers"
            raise ValueError(f"{what}: leave the task {self.task} out, or name its own columns")
        columns = self.labels or self.targets
        if twice := sorted({name for name in columns if columns.count(name) > 1}):
            raise ValueError(f"a column is named twice: {', '.join(twice)}")
        return self

    @model_validator(mode="after")
    def _leaves_some(self) -> DataRecipe:
        if self.test_share + self.val_share >= 1:
            raise ValueError(
                f"test_share {self.test_share:g} and val_share {self.val_share:g} leave nothing to train on: "
                "together they stay below 1"
            )
        return self


class ObtainRecipe(Section):
    """Step 1: which pre-trained model."""

    backbone: str = Field(
        "auto",
        description="packaged:NAME, timm:NAME, path:FILE or run:FOLDER; auto: of those at hand, by a probe on your data, "
        "the cheapest within one standard error of the best (two with run.prefer speed)",
    )
    max_parameters: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="of an automatic choice: most parameters of the backbone, its old classifier not counted",
    )
    network: bool = Field(
        False,
        description="of an automatic choice: also fetch and compare stronger models of the catalogue that fit the machine "
        "and the budget; they are not fetched unasked",
    )
    accept_licences: list[str] = Field(
        [],
        description="licences that forbid commercial use, or are the publisher's own, under which models are taken all the "
        "same; without it they are passed over",
    )


class BaseRecipe(Section):
    """Step 2: the backbone without its old classifier."""

    size: Count | Auto = Field(
        "auto",
        description="input size within the bounds of the modality, of images 32 to 4,096 pixels; auto: by the images' own "
        "size and the cost, or a smaller one whose out-of-fold log loss is clearly lower, where no backbone was named",
    )
    depth: Count | Auto = Field(
        "auto",
        description="first stages kept, pooled by their mean; auto: all, or what a ranking of several backbones chose; where "
        "one is at hand and none was named, fewer where their out-of-fold log loss is clearly lower",
    )
    pooling: Literal["auto", "own", "mean", "cls", "max"] = Field(
        "auto",
        description="how the tokens of a text become one row of features; auto: own, as the weights say, and where they do "
        "not say it, the mean of all, or the first token if its out-of-fold log loss is lower by more than one standard error",
    )
    join: bool | Literal["faded", "deviations"] | Auto = Field(
        "auto",
        description="features of all depths side by side in place of the last ones: true, all count as much; faded, each "
        "half of the next; deviations, with those over the positions beside the means; auto: of images false, of sounds "
        "and of up to 20 texts a class true, unless the out-of-fold log loss of another way is lower by more than one "
        "standard error; of more texts false",
    )
    long: Literal["cut", "windows"] | Auto = Field(
        "auto",
        description="items longer than the network takes: cut, or seen in windows that are averaged (texts); auto: windows "
        "where their out-of-fold log loss is lower by more than one standard error",
    )


class FreezeRecipe(Section):
    """Step 3: which parameters may move when fine-tuning."""

    strategy: str | list[str] = Field(
        "full",
        description="head, last-K, half, full, norm, bias, lora, a list of stages, or auto: tried "
        "against each other on val; full reached the most on average",
    )
    norm_statistics: Literal["frozen", "moving"] = Field(
        "frozen", description="running statistics of batches of 32 are worse than those of a million images"
    )


class HeadRecipe(Section):
    """Step 4: the few new layers."""

    kind: Literal["auto", "linear", "mlp"] = Field(
        "auto",
        description="auto: linear unless an MLP's out-of-fold log loss is lower by more than one standard error",
    )
    hidden: Annotated[int, Field(ge=1, le=16_384)] | Auto = Field(
        "auto", description="width of an MLP's one hidden layer; auto: 128, or 512 by the same rule"
    )
    dropout: Dropout | Auto = Field(
        "auto", description="before the last layer; auto: 0.3, none of a linear head, which has L2"
    )
    beside: bool | Auto = Field(
        "auto",
        description="what a modality has beside its networks, of texts a linear model of their words, added to the logits; "
        "auto: where the loss of held-out examples is lower by more than one standard error",
    )
    names: bool | Auto = Field(
        "auto",
        description="whether a linear head learns from the names of the classes too, where a name is an example as of texts; "
        "auto: of up to 20 examples a class, where these are words, unless the out-of-fold loss is higher by more than one "
        "standard error",
    )


class TrainRecipe(Section):
    """Step 5: the head on frozen features."""

    l2: Annotated[float, Field(gt=0, le=1_000)] | Auto = Field(
        "auto",
        description="strength of the L2 penalty, an MLP's weight decay; auto: by out-of-fold log loss, 5 of an MLP",
    )
    class_weights: str = Field(
        "auto",
        description="none, or what the task knows to do about answers of which there are many and few; of classes, balanced "
        "weighs examples and adjusted moves the logits by the log of the classes' shares; auto: by the out-of-fold macro F1, "
        "or the run's metric, where the largest class is 3 times the smallest",
    )
    folds: int = Field(5, ge=2, le=20, description="folds of the out-of-fold predictions")
    epochs: int = Field(
        60,
        ge=1,
        le=100_000,
        description="most passes of an MLP over the features, ended at the best out of fold; a linear head converges",
    )


class FinetuneRecipe(Section):
    """Step 6: the released layers, gently, from the trained head."""

    begin: bool | Auto = Field(
        "auto",
        description="whether there is any; auto: where a strategy or epochs are named, else of images unless a forecast by the "
        "frozen features says that it gains less than 0.015 in log loss",
    )
    epochs: Epochs | Auto = Field(
        "auto", description="auto: by the number of training examples; 0 stops at the head"
    )
    batch_size: Annotated[int, Field(ge=1, le=4_096)] | Auto = Field(
        "auto", description="examples a step; auto: 16 up to 2,000 training examples, else 32"
    )
    precision: Precision | Auto = Field(
        "auto", description="of forward and backward passes; auto: the faster, by a trial of a few steps"
    )
    lr: Annotated[float, Field(gt=0, le=10)] | Auto = Field(
        "auto",
        description="peak rate of the last stage and the head, earlier ones decay; auto: by the images' size",
    )
    layer_decay: Share | Auto = Field(
        "auto", description="factor a layer towards the input; auto: 0.8, or 1 for images below input size"
    )
    weight_decay: float = Field(0.02, ge=0, le=1_000, description="AdamW's, not on norms and biases")
    patience: Count | Auto = Field(
        "auto",
        description="epochs in a row of a clearly worse val loss before stopping; auto: half of all, at least 4",
    )
    interpolation: Share | Auto = Field(
        "auto",
        description="how far from the head-only weights to the fine-tuned ones; auto: ¼, ½, ¾ or 1, by val loss",
    )
    folds: Folds | Auto = Field(
        "auto",
        description="folds that judge fine-tuning in place of val, as many as it takes; auto: 5 without val, 3 up to "
        "1,000 examples or where val is of a single group, else 0",
    )
    refit: bool | Auto = Field(
        "auto",
        description="train once more on train and val together with what val chose; auto: up to 1,000 of them, "
        "up to 10,000 texts",
    )


class RunRecipe(Section):
    """What holds for the whole run."""

    seed: Seed = Field(0, description="of every random choice in training")
    device: str = Field(
        "auto", description="cpu, cuda, cuda:1 and the like; auto: CUDA, MPS, CPU in this order"
    )
    metric: str = Field(
        "auto",
        description="what fine-tuning must not clearly lose in, beside that it must gain in log loss; "
        "auto: the one that the task is summed up by, accuracy",
    )
    prefer: Literal["accuracy", "speed"] = Field(
        "accuracy",
        description="speed: the cheaper model among close ones; no fine-tuning where a short trial shows no gain, "
        "no refit, no folds beside a val set",
    )
    budget_seconds: float | None = Field(None, gt=0, description="upper bound for the whole run")
    scratch: bool = Field(
        False, description="as a further baseline, the same network trained from random weights"
    )
    offline: bool = Field(False, description="never touch the network, even for a named hub model")
    threads: Annotated[int, Field(ge=1, le=1_024)] | Auto = Field(
        "auto",
        description="CPU threads of torch; auto: as many as it takes, or of a busy machine what a short trial is quickest with",
    )
    engine: EngineName | Auto = Field(
        "auto",
        description="what runs the frozen base; auto: the fastest that agrees with float32, by a trial",
    )
    feature_batch: Annotated[int, Field(ge=1, le=1_024)] | Auto = Field(
        "auto",
        description="static batch shape of feature extraction, padded to it; openvino takes 8, as fast as more; "
        "auto: 32, on CUDA 256",
    )
