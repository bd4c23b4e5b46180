"""Folders of migrations as their tools keep them: order, versions, ways back, what is refused."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from postgres.errors import PostgresError
from postgres.migrate.folders import files
from postgres.migrate.folders.files import is_empty, list_files, read_file
from postgres.migrate.folders.folder import Folder
from postgres.migrate.folders.reading import find_tool, read_folder
from postgres.migrate.words import Migration, Tool

SQL = "CREATE TABLE users (id int);\n"


def write(root: Path, **contents: str | bytes) -> Path:
    """Files by their names; `/` in a name makes a folder."""
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


async def only(root: Path, tool: Tool | None = None) -> Migration:
    (migration,) = (await read_folder(root, tool=tool)).migrations
    return migration


def versions(folder: Folder) -> list[str]:
    return [each.version for each in folder.migrations]


# What is true of every file


@pytest.mark.parametrize(
    ("data", "because"),
    [
        (b"SELECT '\xe4';", "001_x.sql is not UTF-8: byte 9 is 0xe4. Save it as UTF-8."),
        (b"SELECT 1;\0", "001_x.sql has a zero byte in it"),
        (b"", "001_x.sql has no statement in it"),
        (b"-- later\n;/* a /* nested */ SELECT 1 */ ;", "001_x.sql has no statement in it"),
    ],
)
async def test_a_file_that_nobody_can_run_has_a_problem(
    tmp_path: Path, data: bytes, because: str
) -> None:
    found = await only(write(tmp_path, **{"001_x.sql": data}), Tool.PLAIN)
    assert because in found.problem
    if "no statement" not in because:
        assert found.up == ""


async def test_fifty_megabytes_are_refused_by_name_and_not_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "001_dump.sql"
    with path.open("wb") as file:
        file.truncate(50 * 2**20)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("read as a whole"))
    found = await only(tmp_path, Tool.PLAIN)
    assert "001_dump.sql has 50.0 MB, and nobody reviews more than 5 MB" in found.problem
    assert (found.up, len(found.sha256)) == ("", 64)


def test_what_is_larger_than_any_migration_is_not_even_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "HASHED_BYTES_MAX", 10)
    with pytest.raises(PostgresError, match=r"001_x\.sql has 0 MB: that is no migration"):
        read_file(write(tmp_path, **{"001_x.sql": "SELECT 1234567;"}) / "001_x.sql")


def test_a_link_out_of_the_folder_is_refused_and_one_within_it_is_not(tmp_path: Path) -> None:
    folder = write(tmp_path / "db", **{"001_x.sql": SQL})
    (folder / "002_y.sql").symlink_to("001_x.sql")
    assert len(list_files(folder, "*.sql")) == 2
    secret = write(tmp_path, secret="x") / "secret"
    (folder / "003_z.sql").symlink_to(secret)
    with pytest.raises(PostgresError, match=r"003_z\.sql in .*db leads out of the folder"):
        list_files(folder, "*.sql")


def test_a_pipe_in_the_folder_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "001_x.sql")
    with pytest.raises(PostgresError, match=r"001_x\.sql in .* is no plain file"):
        list_files(tmp_path, "*.sql")


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FILES_MAX", 2)
    write(tmp_path, **{f"{n}_x.sql": SQL for n in range(3)})
    with pytest.raises(PostgresError, match="more than 2 migrations"):
        list_files(tmp_path, "*.sql")


def test_too_many_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FOLDER_BYTES_MAX", len(SQL))
    write(tmp_path, **{f"{n}_x.sql": SQL for n in range(2)})
    with pytest.raises(PostgresError, match="or more than 0 MB of them"):
        list_files(tmp_path, "*.sql")


async def test_no_folder_is_said_with_where_to_correct_it(tmp_path: Path) -> None:
    with pytest.raises(PostgresError, match="There is no folder") as refusal:
        await read_folder(tmp_path / "none")
    assert "migrations.folder" in refusal.value.next_step


async def test_what_runs_has_no_byte_order_mark_and_keeps_its_line_ends(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbfSELECT 1;\r\nSELECT 2;\r\n"
    found = await only(write(tmp_path, **{"001_x.sql": text}), Tool.PLAIN)
    assert found.up == "SELECT 1;\r\nSELECT 2;\r\n"
    assert found.sha256 == hashlib.sha256(found.up.encode()).hexdigest()


@pytest.mark.parametrize("sql", ["SELECT 1", "/* a */ /* b */x", "--a\nx", "/", "-", "'--'"])
def test_a_text_with_anything_in_it_is_not_empty(sql: str) -> None:
    assert not is_empty(sql)


@pytest.mark.parametrize("sql", ["", " \t\r\n", "--a", "/*", "/* /* */", ";;", "--a\n/*b*/;"])
def test_a_text_of_comments_is_empty(sql: str) -> None:
    assert is_empty(sql)


# Which tool


@pytest.mark.parametrize(
    ("names", "tool"),
    [
        (["alembic.ini", "migrations/env.py"], Tool.ALEMBIC),
        (["migration_lock.toml"], Tool.PRISMA),
        (["schema.prisma"], Tool.PRISMA),
        (["20260101_x/migration.sql"], Tool.PRISMA),
        (["V1__x.sql", "R__views.sql"], Tool.FLYWAY),
        (["sub/V1__x.sql"], Tool.FLYWAY),
        (["1_x.up.sql", "1_x.down.sql"], Tool.GOLANG_MIGRATE),
        (["001_x.sql", "001_x.down.sql"], Tool.PLAIN),
    ],
)
def test_a_folder_tells_its_tool(tmp_path: Path, names: list[str], tool: Tool) -> None:
    write(tmp_path, **dict.fromkeys(names, SQL))
    assert find_tool(tmp_path) is tool


def test_the_marks_in_its_files_tell_dbmate(tmp_path: Path) -> None:
    write(tmp_path, **{"2026_x.sql": "-- note\n-- migrate:up\nSELECT 1;\n-- migrate:down\n"})
    assert find_tool(tmp_path) is Tool.DBMATE


@pytest.mark.parametrize(
    ("contents", "because"),
    [
        ({}, "looks like a folder of no tool that we know"),
        ({"V1__x.sql": SQL, "001_x.sql": SQL}, "folder of flyway and of plain"),
        ({"001_x.sql": "-- +goose Up\nSELECT 1;"}, "is a folder of goose"),
        ({"001_x.sql": "-- liquibase formatted sql\n"}, "is a folder of Liquibase"),
        ({"001_x.sql": SQL, "atlas.sum": ""}, "is a folder of Atlas"),
    ],
)
def test_nobody_guesses_a_tool(tmp_path: Path, contents: dict[str, str], because: str) -> None:
    with pytest.raises(PostgresError, match=because):
        find_tool(write(tmp_path, **contents))


# Plain SQL


async def test_plain_files_go_by_their_number_and_have_a_way_back(tmp_path: Path) -> None:
    write(tmp_path, **{"10_b.sql": SQL, "9_a.sql": SQL, "9_a.down.sql": "DROP TABLE users;"})
    found = await read_folder(tmp_path)
    assert (versions(found), found.problems) == (["9", "10"], ())
    assert (found.migrations[0].name, found.migrations[0].down) == ("a", "DROP TABLE users;")
    assert found.migrations[1].down is None
    assert found.migrations[0].checksum == found.migrations[0].sha256


async def test_plain_files_that_cannot_be_right_are_named(tmp_path: Path) -> None:
    write(tmp_path, **{"1_a.sql": SQL, "01_b.sql": SQL, "schema.sql": SQL, "2_c.down.sql": SQL})
    problems = (await read_folder(tmp_path, tool=Tool.PLAIN)).problems
    assert [problem.split(". ")[0] for problem in problems] == [
        "schema.sql has no name that the tool would read, such as 001_users.sql",
        "01_b.sql and 1_a.sql are both version 1",
        "2_c.down.sql goes back from a migration that is not there",
    ]


# dbmate


async def test_dbmate_files_are_read_as_dbmate_reads_them(tmp_path: Path) -> None:
    text = "-- head\n-- migrate:up transaction:false\r\nSELECT 1;\n-- migrate:down\nSELECT 2;\n"
    found = await only(write(tmp_path, **{"20260101_users.sql": text}))
    assert (found.version, found.name) == ("20260101", "users")
    assert found.up == "-- head\n-- migrate:up transaction:false\r\nSELECT 1;\n"
    assert found.down == "-- migrate:down\nSELECT 2;\n"
    assert (found.is_transactional, found.down_is_transactional) == (False, True)


async def test_an_empty_way_back_of_dbmate_is_none(tmp_path: Path) -> None:
    found = await only(
        write(tmp_path, **{"1_x.sql": "-- migrate:up\nSELECT 1;\n-- migrate:down\n"})
    )
    assert (found.down, found.down_sha256, found.problem) == (None, "", "")


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("SELECT 1;\n-- migrate:up\n-- migrate:down\n", "has statements before `-- migrate:up`"),
        ("-- migrate:up\nSELECT 1;", "after it one `-- migrate:down`, and has up."),
        ("-- migrate:down\n-- migrate:up\nSELECT 1;", "and has down and up"),
        ("-- migrate:up\nSELECT 1;\n-- migrate:down\n-- migrate:up\n", "has up and down and up"),
        ("SELECT 1;", "and has neither"),
        ("-- migrate:up\n-- migrate:down\nSELECT 1;", "has no statement in it"),
    ],
)
async def test_a_file_that_dbmate_would_not_take_has_a_problem(
    tmp_path: Path, text: str, because: str
) -> None:
    found = await only(write(tmp_path, **{"1_x.sql": text}), Tool.DBMATE)
    assert because in found.problem
    assert found.problem.startswith("1_x.sql ")


# golang-migrate


async def test_golang_migrate_knows_versions_as_numbers(tmp_path: Path) -> None:
    write(tmp_path, **{"000010_b.up.sql": SQL, "000002_a.up.sql": SQL, "000002_a.down.sql": SQL})
    first, second = (await read_folder(tmp_path)).migrations
    assert (first.version, first.book_before, first.book_after) == ("2", (), ("2",))
    assert (second.version, second.book_before, second.book_after) == ("10", ("2",), ("10",))
    assert (first.down, second.down) == (SQL, None)


async def test_a_way_back_without_a_way_forward_is_named(tmp_path: Path) -> None:
    write(tmp_path, **{"1_a.up.sql": SQL, "2_b.down.sql": SQL, "01_c.up.sql": SQL, "x.sql": SQL})
    problems = (await read_folder(tmp_path, tool=Tool.GOLANG_MIGRATE)).problems
    assert [problem.split(",")[0].split(". ")[0] for problem in problems] == [
        "x.sql has no name that the tool would read",
        "01_c.up.sql and 1_a.up.sql are both version 1",
        "2_b.down.sql goes back from version 2",
    ]


# Prisma


async def test_prisma_folders_go_by_name_and_keep_the_bytes_checksum(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbfSELECT 1;\r\n"
    lock = '# note\nprovider = "postgresql"\n'
    write(tmp_path, **{"migrations/migration_lock.toml": lock, "schema.prisma": ""})
    write(tmp_path / "migrations", **{"2_b/migration.sql": SQL, "1_a/migration.sql": text})
    write(tmp_path / "migrations", **{"2_b/down.sql": "DROP TABLE users;"})
    above, within = await read_folder(tmp_path), await read_folder(tmp_path / "migrations")
    assert above.migrations == within.migrations
    first, second = above.migrations
    assert (first.version, second.version) == ("1_a", "2_b")
    assert first.checksum == hashlib.sha256(text).hexdigest()
    unix = hashlib.sha256(text.replace(b"\r\n", b"\n")).hexdigest()
    assert unix in first.same_checksums
    assert second.down == "DROP TABLE users;"


async def test_prisma_problems_name_the_folder_since_all_files_are_called_alike(
    tmp_path: Path,
) -> None:
    write(tmp_path, **{"1_a/migration.sql": b"\xff", "2_b/down.sql": SQL, "loose.sql": SQL})
    found = await read_folder(tmp_path, tool=Tool.PRISMA)
    assert found.migrations[0].problem.startswith("1_a/migration.sql is not UTF-8")
    assert [problem.split(". ")[0] for problem in found.problems] == [
        "2_b/down.sql has no migration.sql beside it",
        "loose.sql stands beside the folders of Prisma, which passes it over",
    ]


async def test_migrations_of_another_database_are_refused(tmp_path: Path) -> None:
    write(tmp_path, **{"migration_lock.toml": 'provider = "mysql"\n', "1_a/migration.sql": SQL})
    with pytest.raises(PostgresError, match="no migrations of PostgreSQL"):
        await read_folder(tmp_path)


# Flyway


async def test_flyway_versions_go_by_their_numbers_and_repeatable_ones_last(
    tmp_path: Path,
) -> None:
    names = ["V2.10__c.sql", "V2_1__b.sql", "V1.0__a_table.sql", "R__views_b.sql", "sub/V3__d.sql"]
    write(tmp_path, **dict.fromkeys(names, SQL))
    write(tmp_path, **{"U2.1.0__b.sql": "DROP TABLE users;"})
    found = await read_folder(tmp_path)
    assert versions(found) == ["1", "2.1", "2.10", "3", "R__views_b"]
    assert [each.is_repeatable for each in found.migrations] == [False] * 4 + [True]
    assert found.migrations[1].down == "DROP TABLE users;"
    assert found.problems == ()


# Computed with Java's CRC32 and BufferedReader, in the way of ChecksumCalculator.java.
@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"SELECT 1;\n", "78787420"),
        (b"SELECT 1;", "78787420"),
        (b"\xef\xbb\xbfSELECT 1;\r\n", "78787420"),
        (b"CREATE TABLE a (id int);\r\n\r\n-- \xc3\xa4\rSELECT 1;\n", "-1602969721"),
        (b"", "0"),
    ],
)
async def test_flyway_checksums_are_those_of_java(
    tmp_path: Path, data: bytes, checksum: str
) -> None:
    found = await only(write(tmp_path, **{"V1__x.sql": data}), Tool.FLYWAY)
    assert found.checksum == checksum


async def test_a_script_configuration_takes_a_file_out_of_its_transaction(tmp_path: Path) -> None:
    write(tmp_path, **{"V1__a.sql": SQL, "V2__b.sql": SQL})
    write(tmp_path, **{"V2__b.sql.conf": "# why\n executeInTransaction = FALSE \n"})
    first, second = (await read_folder(tmp_path)).migrations
    assert (first.is_transactional, second.is_transactional) == (None, False)


async def test_what_only_flyway_can_do_is_refused(tmp_path: Path) -> None:
    write(tmp_path, **{"V1__a.sql": "GRANT ALL ON users TO ${role};", "U9__z.sql": SQL})
    write(tmp_path, **{"afterMigrate.sql": SQL, "B5__base.sql": SQL, "V__x.sql": SQL})
    write(tmp_path, **{"V1.0__b.sql": "SELECT '${x}';"})
    write(tmp_path, **{"V1.0__b.sql.conf": "placeholderReplacement=false"})
    found = await read_folder(tmp_path, tool=Tool.FLYWAY)
    assert "V1__a.sql has the placeholder ${role}, and only Flyway" in found.migrations[1].problem
    assert found.migrations[0].problem == ""
    assert [problem.split(",")[0].split(". ")[0] for problem in found.problems] == [
        "B5__base.sql is a baseline migration",
        "V__x.sql has no name that the tool would read",
        "afterMigrate.sql is a callback",
        "V1.0__b.sql and V1__a.sql are both version 1",
        "U9__z.sql goes back from version 9",
    ]


def test_the_folder_is_read_by_its_real_place(tmp_path: Path) -> None:
    real = write(tmp_path / "real", **{"001_x.sql": SQL})
    (tmp_path / "link").symlink_to(real)
    assert len(list_files(tmp_path / "link", "*.sql")) == 1
    shutil.rmtree(real)
