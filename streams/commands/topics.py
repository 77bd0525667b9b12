"""`campaign-streams topics create`: the topics, for whoever does not let workers create them."""

import typer

from streams.adapters.kafka_admin import create_topics, topic_plans
from streams.commands.options import out, prose, run
from streams.settings import load_settings

app = typer.Typer(
    no_args_is_help=True,
    help="Kafka topics: creating what is missing.",
    rich_markup_mode="rich",
)


def create() -> None:
    """Create the topics that are missing, with the retention that they need; those that exist stay as they are.

    kafka.partitions and kafka.replication_factor say how. Workers then need no right to create topics, and
    kafka.create_topics can stay false.
    """
    kafka = load_settings().kafka
    created = run(create_topics(kafka))
    for name in created:
        out().print(f"created {name}")
    out().print(f"{len(created)} topics created, {len(topic_plans(kafka)) - len(created)} were there")


app.command("create", help=prose(create.__doc__))(create)
