"""A schema.prisma becomes the DDL that Prisma makes of it, or is refused with its line."""

from __future__ import annotations

import pytest

from postgres.errors import PostgresError
from postgres.schema.prisma_ddl import prisma_ddl

GUIDE = """
// schema.prisma - Single source of truth
datasource db {
  provider = "postgresql"
  url      = env("DATABASE_URL")
}

model Organization {
  id          String   @id @default(uuid())
  name        String
  slug        String   @unique

  // Audit fields
  createdAt   DateTime @default(now())
  updatedAt   DateTime @updatedAt

  users       User[]

  @@index([slug])
}

model User {
  id              String       @id @default(uuid())
  email           String       @unique
  organizationId  String
  organization    Organization @relation(fields: [organizationId], references: [id],
                                         onDelete: Cascade)

  @@index([organizationId])
  @@index([email])
}
"""
# What `prisma migrate diff --from-empty --script` writes for it.
GUIDE_DDL = """\
CREATE TABLE "Organization" (
    "id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "slug" TEXT NOT NULL,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" TIMESTAMP(3) NOT NULL,
    CONSTRAINT "Organization_pkey" PRIMARY KEY ("id")
);
CREATE TABLE "User" (
    "id" TEXT NOT NULL,
    "email" TEXT NOT NULL,
    "organizationId" TEXT NOT NULL,
    CONSTRAINT "User_pkey" PRIMARY KEY ("id")
);
CREATE UNIQUE INDEX "Organization_slug_key" ON "Organization"("slug");
CREATE INDEX "Organization_slug_idx" ON "Organization"("slug");
CREATE UNIQUE INDEX "User_email_key" ON "User"("email");
CREATE INDEX "User_organizationId_idx" ON "User"("organizationId");
CREATE INDEX "User_email_idx" ON "User"("email");
ALTER TABLE "User" ADD CONSTRAINT "User_organizationId_fkey" FOREIGN KEY ("organizationId")\
 REFERENCES "Organization"("id") ON DELETE CASCADE ON UPDATE CASCADE;"""


def model(*lines: str, more: str = "") -> str:
    """The DDL of a model `M` with a key and these lines."""
    inside = "\n".join(("id Int @id", *lines))
    return prisma_ddl(f"model M {{\n{inside}\n}}\n{more}")


def test_the_guides_schema_is_made_as_prisma_makes_it() -> None:
    assert prisma_ddl(GUIDE) == GUIDE_DDL


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("x String?", '"x" TEXT'),
        ("x String[]", '"x" TEXT[]'),
        ("x Int @default(autoincrement())", '"x" SERIAL NOT NULL'),
        ("x BigInt @default(autoincrement())", '"x" BIGSERIAL NOT NULL'),
        ("x Decimal @db.Decimal(10, 2)", '"x" DECIMAL(10,2) NOT NULL'),
        ("x DateTime @db.Timestamptz(6)", '"x" TIMESTAMPTZ(6) NOT NULL'),
        ("x String @default(cuid())", '"x" TEXT NOT NULL'),
        ('x String @default("it\'s")', "\"x\" TEXT NOT NULL DEFAULT 'it''s'"),
        ('x String @default("a // b") // c', "\"x\" TEXT NOT NULL DEFAULT 'a // b'"),
        ("x Float @default(-1.5)", '"x" DOUBLE PRECISION NOT NULL DEFAULT -1.5'),
        ("x Boolean @default(true)", '"x" BOOLEAN NOT NULL DEFAULT true'),
        (
            'x String @default(dbgenerated("gen_random_uuid()")) @db.Uuid',
            '"x" UUID NOT NULL DEFAULT gen_random_uuid()',
        ),
        ('x Int @map("eks")', '"eks" INTEGER NOT NULL'),
        ('x Unsupported("tsvector")?', '"x" tsvector'),
        ("x Json", '"x" JSONB NOT NULL'),
        ("x Bytes", '"x" BYTEA NOT NULL'),
    ],
)
def test_a_field_becomes_its_column(line: str, column: str) -> None:
    assert f"    {column},\n" in model(line)


def test_enums_keep_their_mapped_names_and_labels() -> None:
    enum = 'enum Role {\n  ADMIN @map("admin")\n  USER\n  @@map("roles")\n}'
    ddl = model("role Role @default(ADMIN)", more=enum)
    assert "CREATE TYPE \"roles\" AS ENUM ('admin', 'USER');" in ddl
    assert '"role" "roles" NOT NULL DEFAULT \'admin\'' in ddl


def test_keys_and_indexes_of_several_columns_have_prismas_names() -> None:
    ddl = prisma_ddl("""
        model Line {
          order Int
          place Int
          note  String
          @@id([order, place])
          @@unique([note, place])
          @@index([note(sort: Desc)], map: "by_note")
          @@index([note], type: Hash)
          @@map("lines")
        }
    """)
    assert 'CONSTRAINT "lines_pkey" PRIMARY KEY ("order", "place")' in ddl
    assert 'CREATE UNIQUE INDEX "lines_note_place_key" ON "lines"("note", "place");' in ddl
    assert 'CREATE INDEX "by_note" ON "lines"("note" DESC);' in ddl
    assert 'CREATE INDEX "lines_note_idx" ON "lines" USING HASH("note");' in ddl


def test_an_optional_relation_is_set_null_and_a_required_one_restricts() -> None:
    more = 'model N {\n id Int @id\n ms M[]\n other M[] @relation("o")\n}'
    ddl = model(
        "nId Int?", "n N? @relation(fields: [nId], references: [id])",
        "oId Int", 'o N @relation("o", fields: [oId], references: [id])', more=more,
    )  # fmt: skip
    assert (
        'CONSTRAINT "M_nId_fkey" FOREIGN KEY ("nId") REFERENCES "N"("id") ON DELETE SET NULL' in ddl
    )
    assert (
        'CONSTRAINT "M_oId_fkey" FOREIGN KEY ("oId") REFERENCES "N"("id") ON DELETE RESTRICT' in ddl
    )


def test_lists_on_both_sides_make_a_table_between() -> None:
    ddl = model("tags Tag[]", more="model Tag {\n id BigInt @id\n ms M[]\n}")
    assert 'CREATE TABLE "_MToTag" (\n    "A" INTEGER NOT NULL,\n    "B" BIGINT NOT NULL,' in ddl
    assert ddl.count("_MToTag_AB_pkey") == 1
    assert 'CREATE INDEX "_MToTag_B_index" ON "_MToTag"("B");' in ddl


def test_a_long_name_is_cut_before_its_ending() -> None:
    ddl = model(f"{'x' * 70} Int @unique")
    [name] = [line.split('"')[1] for line in ddl.splitlines() if "UNIQUE INDEX" in line]
    assert len(name) == 63
    assert name.endswith("_key")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("modl X {\n}", "line 1: 'modl X {' is no beginning of a block"),
        ("model X {\n id Int @id", "line 1: model X does not end"),
        ("model X {\n id Whatever @id\n}", "line 2: the type Whatever is not known"),
        ("model X {\n id Int @id @db.Nope\n}", "line 2: the type @db.Nope is not known"),
        ("model X {\n id Int @id @default(wild())\n}", r"line 2: the default wild\(\)"),
        ("model X {\n id Int @id\n @@fulltext([id])\n}", "@@fulltext is not understood"),
        ("model X {\n id Int @id\n @@index([id(\n}", "line 3: a bracket is not closed"),
        ("model X {\n id Int @id\n @@index([nope])\n}", "X has no field nope"),
        ("model X {\n id String @id @default(autoincrement())\n}", r"autoincrement\(\) on TEXT"),
        ("view V {\n id Int\n}", "view V is not understood"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(text: str, says: str) -> None:
    with pytest.raises(PostgresError, match=says):
        prisma_ddl(text)
