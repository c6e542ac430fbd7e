"""Who carries e-mail, as the settings say."""

from __future__ import annotations

from models.notifications.gateway import EmailSender, LogSender, SendGridSender, SmtpSender
from ops.settings import Settings


def email_sender(settings: Settings) -> EmailSender:
    """SendGrid where there is a key, else SMTP where there is a server, else the log."""
    if settings.sendgrid_api_key is not None:
        return SendGridSender(
            settings.sendgrid_api_key, sender=settings.email_from, api_base=settings.sendgrid_api_base
        )
    if settings.smtp_url is not None:
        return SmtpSender(settings.smtp_url, sender=settings.email_from)
    return LogSender()
