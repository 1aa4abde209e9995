"""What both sides of the broker must agree on (the shortest visibility timeout among them wins)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from gateway.domain.job import ANY_DEVICE, Priority


def queue_of(device: str, priority: Priority) -> str:
    """The queue that wakes workers of a device class: `hilum.any.stat`."""
    return f"hilum.{device}.{priority.name.lower()}"


def queues_of(devices: Collection[str]) -> list[str]:
    """What a worker with these devices listens to, the most urgent first."""
    classes = dict.fromkeys((*devices, ANY_DEVICE))
    return [queue_of(device, priority) for priority in Priority for device in classes]


_TASK_LIMIT = 7200  # seconds; the model's own limit is in its manifest and is enforced by the worker


def celery_settings() -> dict[str, Any]:
    """A job is true in the ledger only, so a message may be lost, doubled or late without harm (ADR 0002)."""
    visibility = {"visibility_timeout": 2 * _TASK_LIMIT}
    return {
        "accept_content": ["json"],
        "task_serializer": "json",
        "task_ignore_result": True,
        "task_default_queue": queue_of(ANY_DEVICE, Priority.ROUTINE),
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_acks_on_failure_or_timeout": True,
        "worker_prefetch_multiplier": 1,
        "worker_hijack_root_logger": False,
        "worker_send_task_events": False,
        "worker_soft_shutdown_timeout": 30,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_connection_timeout": 1,
        "broker_transport_options": {
            **visibility,
            "queue_order_strategy": "priority",  # the order in which they are listed
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_keepalive": True,
            "socket_connect_timeout": 1,
            "socket_timeout": 30,
            "health_check_interval": 10,
        },
        "result_backend_transport_options": visibility,
        "visibility_timeout": 2 * _TASK_LIMIT,
    }
