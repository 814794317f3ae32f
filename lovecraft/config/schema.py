"""Every option there is: its type, its default and the sentence that `lc show` and `--help` print.

A class here says *what*; the code that does it takes the resolved instance and lives outside `config`.
"""

from pathlib import Path
from typing import Annotated, Literal

from lovecraft.config.base import Config
from lovecraft.config.model_schema import DynamicScaling as DynamicScaling
from lovecraft.config.model_schema import Init as Init
from lovecraft.config.model_schema import LinearScaling as LinearScaling
from lovecraft.config.model_schema import Llama3Scaling as Llama3Scaling
from lovecraft.config.model_schema import ModelConfig as ModelConfig
from lovecraft.config.model_schema import RopeScaling as RopeScaling
from lovecraft.config.model_schema import YarnScaling as YarnScaling
from lovecraft.config.values import Location, fraction, ge, gt, le, quiet

# --- data -----------------------------------------------------------------------------------------


class BPE(Config):
    """How to train a byte-level BPE tokenizer."""

    vocab_size: Annotated[int, ge(258)] = 4096
    """Tokens at most: the 256 bytes, BOS, EOS, and what merges make."""

    min_frequency: Annotated[int, ge(1)] = 2
    """Times that two neighbours must occur to become one token."""


class DatasetConfig(Config):
    """Which texts to read, which to hold out, and how to cut them into blocks of tokens."""

    source: Location
    """A directory of texts, one file, a .tgz, .tar.gz or .zip of them, or a dataset of the hub as hf:org/name."""

    format: Literal["auto", "text", "jsonl", "csv", "parquet"] = "auto"
    """How the files are read; auto goes by their ending."""

    sample_by: Literal["document", "paragraph", "line"] = "document"
    """What counts as one document of a text file."""

    text_field: str = "text"
    """The field that holds the text, in jsonl, csv and parquet."""

    messages_field: str | None = None
    """Field that holds a conversation's messages; only what the assistant says is supervised."""

    prompt_field: str | None = None
    """Field that holds a prompt, to which `response_field` is the reply."""

    response_field: str | None = None
    """Field that holds the reply, which alone is supervised."""

    train: tuple[str, ...] | None = None
    """Patterns of the files to train on, less what is held out; none takes the source's train split, or all files."""

    validation: tuple[str, ...] | None = None
    """Patterns of the files to hold out for validation; none takes the source's own split, if it has one."""

    test: tuple[str, ...] | None = None
    """Patterns of the files to hold out for the final test; none takes the source's own split, if it has one."""

    validation_fraction: Annotated[float, fraction()] = 0.0
    """Share of the train documents to hold out for validation, where no pattern names them."""

    validation_count: Annotated[int, ge(0)] = 0
    """Number of the train documents to hold out for validation, instead of a share."""

    split_seed: int = 0
    """Another seed holds out other documents."""

    tokenizer: Location | None = None
    """A tokenizer's directory; none takes the model's."""

    bpe: type[BPE] | None = None
    """Train a byte-level BPE on the train texts, instead of taking a tokenizer."""

    block_size: Annotated[int, gt(1)] = 512
    """Tokens in one block."""

    stride: Annotated[int, ge(0)] = 64
    """Tokens that consecutive blocks of a document share; at least one is always shared."""

    min_length: Annotated[int, ge(1)] = 1
    """Supervised tokens that a piece of a train document must have to be kept."""

    packing: Literal["none", "greedy", "best_fit"] = "none"
    """Fill train blocks with several documents, which never see each other: as they come, or to waste least."""

    add_bos: bool | None = None
    """Put BOS before a document; none follows the tokenizer's habit."""

    add_eos: bool = True
    """Put EOS after a document."""

    train_on_overlap: bool = False
    """Supervise the shared tokens again; else they are context only."""

    shuffle: bool = True
    """Draw the train blocks in a new seeded order each epoch."""


# --- optimizers and schedules -----------------------------------------------------------------------


class OptimizerConfig(Config):
    """How the weights are updated."""

    lr: Annotated[float, gt(0)] = 1e-5
    """Peak learning rate."""

    weight_decay: Annotated[float, ge(0)] = 0.0
    """Decoupled weight decay; norms and embeddings are never decayed."""

    rounding: Literal["stochastic", "master", "nearest"] = "stochastic"
    """How bfloat16 weights take small updates: seeded stochastic rounding, float32 masters, or nearest."""


class AdamW(OptimizerConfig):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    lr = 2e-5

    betas: tuple[Annotated[float, fraction()], Annotated[float, fraction()]] = (0.9, 0.999)
    """Decay rates of the two moments."""

    eps: Annotated[float, gt(0)] = 1e-8
    """Added to the denominator."""

    state_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the two moments; bfloat16 takes half the memory and is rounded stochastically."""


class Adafactor(OptimizerConfig):
    """Factored second moments, no first (Shazeer and Stern, 2018)."""

    clip_threshold: Annotated[float, gt(0)] = 1.0
    """Largest root mean square of one update."""

    decay_rate: Annotated[float, ge(-1), le(0)] = -0.8
    """Exponent of the second moment's decay: 1 - step ** decay_rate."""

    eps: tuple[Annotated[float, gt(0)], Annotated[float, ge(0)]] = (1e-30, 1e-3)
    """Floors of the squared gradient and of a parameter's scale."""

    relative_step: bool = False
    """Scale the learning rate by the root mean square of each parameter."""


class SGD(OptimizerConfig):
    """Stochastic gradient descent."""

    momentum: Annotated[float, fraction()] = 0.0
    """Decay rate of the velocity."""


class ScheduleConfig(Config):
    """How the learning rate moves over the optimizer steps."""

    warmup: Annotated[float, ge(0)] = 0.0
    """Steps of linear warm-up, or a fraction of all steps if below 1."""


class Constant(ScheduleConfig):
    """Warm up, then stay."""


class Linear(ScheduleConfig):
    """Warm up, then fall in a line."""

    min_lr: Annotated[float, fraction()] = 0.0
    """Where it ends, as a fraction of the peak."""


class Cosine(ScheduleConfig):
    """Warm up, then fall along half a cosine."""

    min_lr: Annotated[float, fraction()] = 0.0
    """Where it ends, as a fraction of the peak."""


class WSD(ScheduleConfig):
    """Warm up, stay, then fall in a line at the end."""

    decay: Annotated[float, ge(0)] = 0.2
    """Steps of the fall, or a fraction of all steps if below 1."""

    min_lr: Annotated[float, fraction()] = 0.0
    """Where it ends, as a fraction of the peak."""


# --- training ---------------------------------------------------------------------------------------


class Memory(Config):
    """What to give up for memory."""

    checkpointing: Literal["none", "block", "auto"] = "auto"
    """Keep only each block's input and recompute the rest in backward; auto does if the plan needs it."""

    offload: Literal["none", "block_inputs", "auto"] = "auto"
    """Keep the blocks' inputs in host memory between forward and backward; auto does if the plan needs it."""

    optimizer_in_backward: Literal["auto", "on", "off"] = "auto"
    """Update each weight in backward and free its gradient at once; auto does if the plan needs it."""

    optimizer_device: Literal["device", "host", "auto"] = "auto"
    """Where gradients add up and weights are updated; host frees a GPU of all that, auto does if the plan needs it."""

    loss_chunk: Annotated[int, ge(0)] = 1024
    """Rows of logits held at once; 0 holds them all."""

    limit: Annotated[float, gt(0)] | None = None
    """GiB that training may use; none is what the device has."""


class Save(Config):
    """When to write checkpoints and which to keep."""

    every: Annotated[int, gt(0)] | None = None
    """Optimizer steps between checkpoints; none writes only the final one."""

    keep: Annotated[int, ge(1)] = 2
    """Newest checkpoints to keep."""

    best: bool = True
    """Also keep the one with the lowest validation loss."""

    final: bool = True
    """Write one at the end."""

    optimizer: Literal["newest", "all"] = "newest"
    """Which checkpoints hold the optimizer's state, without which a run does not go on exactly."""


class Eval(Config):
    """When to measure the loss on held-out text."""

    every: Annotated[int, gt(0)] | None = None
    """Optimizer steps between evaluations; none measures only before and after."""

    split: Literal["validation", "test"] = "validation"
    """Which held-out split."""

    max_blocks: Annotated[int, gt(0)] | None = None
    """Blocks to measure; none takes all."""

    prompts: tuple[str, ...] = ()
    """Texts to continue, and print, at each evaluation."""

    patience: Annotated[int, gt(0)] | None = None
    """Evaluations in a row without a lower loss after which the run is finished; none goes on to the last step."""


class Log(Config):
    """What to write down."""

    every: Annotated[int, gt(0)] = 1
    """Optimizer steps between rows of metrics.jsonl."""

    sinks: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Where the rows go as well."""

    profile: Annotated[int, gt(0)] | None = None
    """Steps to profile, from the second on, into trace.json and a table; none profiles nothing."""


class TrainConfig(Config):
    """How to train."""

    dataset: type[DatasetConfig]
    """What to train on."""

    model: type[ModelConfig]
    """What to start from."""

    optimizer: type[OptimizerConfig] = AdamW
    """How the weights are updated."""

    schedule: type[ScheduleConfig] = Cosine
    """How the learning rate moves."""

    memory: Annotated[type[Memory], quiet] = Memory
    """What to give up for memory."""

    save: Annotated[type[Save] | None, quiet] = Save
    """When to write checkpoints; none writes nothing."""

    eval: Annotated[type[Eval] | None, quiet] = Eval
    """When to measure the held-out loss; none never does."""

    log: Annotated[type[Log], quiet] = Log
    """What to write down."""

    epochs: Annotated[float, gt(0)] = 1.0
    """Passes over the train blocks; the earlier of this and max_steps ends the run."""

    max_steps: Annotated[int, gt(0)] | None = None
    """Optimizer steps at most; none leaves it to epochs."""

    max_minutes: Annotated[float | None, gt(0), quiet] = None
    """Wall time at most, after which the run saves and stops, to be resumed."""

    batch_size: Annotated[int, gt(0)] = 8
    """Blocks in one forward pass."""

    accumulation: Annotated[int, gt(0)] = 1
    """Forward passes in one optimizer step."""

    max_grad_norm: Annotated[float, gt(0)] | None = None
    """Norm to which the gradients are clipped; none clips nothing."""

    stop_on_spike: Annotated[float | None, gt(1), quiet] = None
    """End the run where a step's loss is more than this many times its running mean; none goes on."""

    seed: int = 42
    """Seed of the data order and of stochastic rounding."""

    device: Annotated[str, quiet] = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


# --- serving ----------------------------------------------------------------------------------------


class ServeConfig(Config):
    """How to serve a model."""

    host: str = "127.0.0.1"
    """Address to listen on; another than this machine's own needs api_key_file."""

    port: Annotated[int, ge(0), le(65535)] = 8000
    """Port to listen on; 0 takes a free one."""

    name: str | None = None
    """Model name that clients see; none takes the directory's or the config's."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights in memory."""

    context: Literal["error", "stop", "roll"] = "error"
    """What happens at the end of the context: refuse the request, stop there, or go on over the newest half."""

    max_context: Annotated[int, gt(0)] | None = None
    """Longest context in tokens; none takes the model's own."""

    max_concurrent: Annotated[int, ge(1), le(256)] = 8
    """Requests that are continued at the same time; each has room for a whole context."""

    max_queue: Annotated[int, ge(0)] = 64
    """Requests that may wait; more are refused with 429."""

    api_key_file: Path | None = None
    """A file with one accepted API key a line."""

    drain_timeout: Annotated[float, ge(0)] = 30.0
    """Seconds that running requests get to finish at shutdown."""
