"""Alembic's entry: runs on the connection that the caller hands over, inside the caller's transaction."""

from alembic import context

from multiprompt.catalog.schema import UtcDateTime, metadata


def render_item(kind: str, item: object, _autogen_context: object) -> str | bool:
    return "sa.DateTime()" if kind == "type" and isinstance(item, UtcDateTime) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=False,
    render_item=render_item,
)
context.run_migrations()
