"""Durations as text, and how often a log tells how long something will still take."""

REPORT_SECONDS = 60.0
"""In a log, what is under way is reported this far apart."""


def duration(seconds: float) -> str:
    """Seconds as text: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
