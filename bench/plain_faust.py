"""The comparison: a plain Faust agent that counts the same events in a Faust table. Prints events per second."""

import os
import sys
import time

import faust
import orjson

from streams.topics import INPUT_TOPICS


def main() -> None:
    """`python -m bench.plain_faust BROKER EVENTS DIRECTORY`: ends by itself when all events are counted."""
    broker, events, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    app = faust.App(
        "plain",
        broker=f"kafka://{broker}",
        store="memory://",
        datadir=f"{directory}/plain",
        web_enabled=False,
        topic_disable_leader=True,
        topic_partitions=4,
        broker_session_timeout=6,
        broker_heartbeat_interval=1,
        consumer_auto_offset_reset="earliest",
        producer_linger=0.05,
        autodiscover=False,
    )
    topic = app.topic(*INPUT_TOPICS.values(), value_serializer="raw", key_serializer="raw")
    counts = app.Table("counts", default=int, partitions=4)
    seen = app.Table("seen", default=bool, partitions=4)
    progress = {"count": 0, "started": 0.0}

    @app.agent(topic)
    async def count(stream: faust.Stream) -> None:
        async for value in stream:
            if progress["count"] == 0:
                progress["started"] = time.monotonic()
            event = orjson.loads(value)
            if not seen[event["event_id"]]:
                seen[event["event_id"]] = True
                pane = event["event_time_ms"] // 10_000
                counts[f"{event['campaign_id']}|{event['ad_unit_id']}|{event['creative_id']}|{pane}"] += 1
            progress["count"] += 1
            if progress["count"] == events:
                seconds = time.monotonic() - progress["started"]
                os.write(1, f"events_per_s={events / seconds}\n".encode())  # Faust redirects print to its log
                os._exit(0)

    faust.Worker(app, loglevel="warning").execute_from_commandline()


if __name__ == "__main__":
    main()
