"""Which book a tool keeps."""

from __future__ import annotations

from postgres.migrate.books import dbmate, plain
from postgres.migrate.books.book import Book
from postgres.migrate.books.dbmate import DbmateBook
from postgres.migrate.books.plain import PlainBook
from postgres.migrate.books.tables import table_name
from postgres.migrate.own_schema import SCHEMA
from postgres.migrate.words import Tool


def book_of(tool: Tool, *, table: str = "") -> Book:
    """The book of a tool. `table` is its name where it is not the usual one.

    Raises:
        PostgresError: `table` is no name of a table.
    """
    match tool:
        case Tool.DBMATE:
            return DbmateBook(name=table_name(table, usual=dbmate.USUAL))
        case Tool.PLAIN:
            return PlainBook(name=table_name(table, usual=plain.USUAL, schema=SCHEMA))
        case _:
            raise NotImplementedError
