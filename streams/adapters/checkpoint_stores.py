"""Which checkpoint store the settings ask for."""

from streams.adapters.directory_checkpoints import DirectoryCheckpointStore
from streams.adapters.kafka_checkpoints import KafkaCheckpointStore
from streams.settings import Settings

ConfiguredStore = KafkaCheckpointStore | DirectoryCheckpointStore


def store_of(settings: Settings, *, is_reader: bool = False) -> ConfiguredStore:
    """The store, not started. A reader of a directory need not be: starting it is its owner's, who tidies up."""
    worker = settings.worker
    if worker.checkpoint_store == "kafka":
        return KafkaCheckpointStore(settings.kafka, is_reader=is_reader)
    return DirectoryCheckpointStore(worker.state_dir / f"checkpoints-{worker.log_epoch}")
