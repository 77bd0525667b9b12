"""`campaign-streams notifier`: delivery of alerts as a process of its own."""

from streams.settings import load_settings


def notifier() -> None:
    """Deliver alerts from a process of its own: webhooks, chat, mail.

    Workers deliver too, unless delivery.in_worker is false; Kafka gives the work to one process at a time, whichever
    of them it is, and to another when that one ends. What was told is in ads.deliveries: nothing is lost, and a message
    that is sent twice carries the same id. Metrics: /metrics at delivery.web_port.
    """
    settings = load_settings()
    from streams.agents.delivery_process import run_notifier  # Faust takes a second to import

    run_notifier(settings)
