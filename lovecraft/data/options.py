"""What the options of a dataset must satisfy together. Imports nothing heavy, so that any command may ask early."""

from lovecraft.config.schema import DatasetConfig
from lovecraft.errors import ConfigError

SPLITS = ("train", "validation", "test")


def check_options(dataset: DatasetConfig) -> None:
    """Raise ConfigError for options that are right one by one but cannot work together."""
    if dataset.stride >= dataset.block_size:
        raise ConfigError(
            f"stride ({dataset.stride}) must be below block_size ({dataset.block_size})",
            hint="stride is how many tokens consecutive blocks share: lower it, or raise block_size",
        )
    most = dataset.block_size - context_length(dataset)
    if dataset.min_length > most:
        raise ConfigError(
            f"min_length ({dataset.min_length}) is above the {most} tokens that a full block supervises",
            hint="lower min_length or stride, or raise block_size",
        )
    held_out = [name for name in ("validation", "validation_fraction", "validation_count") if getattr(dataset, name)]
    if len(held_out) > 1:
        hint = "name the held-out files, or give their share or their number"
        raise ConfigError(f"{' and '.join(held_out)} are both set", hint=hint)
    if dataset.bpe is not None and dataset.tokenizer is not None:
        raise ConfigError("tokenizer and bpe are both set", hint="name a tokenizer or train one, not both")
    if dataset.train == () and not (dataset.validation or dataset.test):
        raise ConfigError("train, validation and test are all empty", hint='set train = ("*.txt",)')
    _check_fields(dataset)


def _check_fields(dataset: DatasetConfig) -> None:
    pair = (dataset.prompt_field, dataset.response_field)
    if pair.count(None) == 1:
        raise ConfigError("prompt_field and response_field need each other", hint="set both; a text is text_field")
    if dataset.messages_field is not None and None not in pair:
        hint = "a row is a conversation or a pair: set only the one or the other"
        raise ConfigError("messages_field and prompt_field are both set", hint=hint)
    if (dataset.messages_field, *pair).count(None) < 3 and dataset.sample_by != "document":
        hint = 'a conversation stays whole: set sample_by = "document"'
        raise ConfigError(f"sample_by is {dataset.sample_by}, but rows are conversations or pairs", hint=hint)


def has_conversations(dataset: DatasetConfig) -> bool:
    """Return whether a row holds a conversation or a pair, and not a text."""
    return dataset.messages_field is not None or dataset.prompt_field is not None


def shared_length(dataset: DatasetConfig) -> int:
    """Return how many tokens consecutive blocks share: at least one, which the next token is predicted from."""
    return max(1, dataset.stride)


def context_length(dataset: DatasetConfig) -> int:
    """Return how many tokens at the start of a later train block are context only."""
    return 1 if dataset.train_on_overlap else shared_length(dataset)
