"""What rewinding and rebuilding a node runs on its machine; see `host_scripts`.

DATA.twokey-kept holds what pg_rewind would replace by the other node's: configuration and keys, and
the note `half` while the folder is no server. DATA.twokey-new is a copy in the making.
"""

from __future__ import annotations

from typing import Final

from postgres.cluster.host_scripts import HEAD

# The first copy is the right one: a later life may find the other node's files here already.
KEEP: Final = (
    HEAD
    + """
umask 077
mkdir -p "$data.twokey-kept" || exit 1
[ -f "$data.twokey-kept/complete" ] && exit 0
for file in "$data"/*.conf "$data"/*.crt "$data"/*.key "$data"/*.pem "$data"/*.crl \\
    "$data/postmaster.opts"; do
    [ -f "$file" ] || continue
    cp -p "$file" "$data.twokey-kept/" || exit 1
done
sync "$data.twokey-kept" 2>/dev/null || :
true >"$data.twokey-kept/complete"
"""
)
_PUT_BACK: Final = """
put_back() { # our own files into $1
    for file in "$data.twokey-kept"/*; do
        case ${file##*/} in complete | half | password) continue ;; esac
        [ -f "$file" ] || continue
        cp -p "$file" "$1/" || return 1
    done
}
"""
PUT_BACK: Final = (
    HEAD
    + _PUT_BACK
    + """
[ -f "$data.twokey-kept/complete" ] || exit 0
put_back "$data"
"""
)

# What it takes away and puts in is not undone when it ends in the middle: then the folder is no
# server, and must not look like one. The password comes by standard input.
REWIND: Final = (
    HEAD
    + _PUT_BACK
    + """
programs=$2 source=$3 mode=$4
umask 077
cat >"$data.twokey-kept/password" || exit 1
export PGPASSFILE="$data.twokey-kept/password" LC_ALL=C
if [ "$mode" = try ]; then
    "$programs/pg_rewind" --dry-run --no-ensure-shutdown -D "$data" --source-server="$source"
    code=$?
    rm -f "$data.twokey-kept/password"
    exit $code
fi
true >"$data.twokey-kept/half" && sync "$data.twokey-kept/half" "$data.twokey-kept" 2>/dev/null
"$programs/pg_rewind" --no-ensure-shutdown -D "$data" --source-server="$source"
code=$?
rm -f "$data.twokey-kept/password"
if [ "$code" = 0 ]; then
    true >"$data/standby.signal" && put_back "$data" || exit 1
    sync "$data/standby.signal" "$data" 2>/dev/null
    rm -f "$data.twokey-kept/half"
else
    [ -f "$data/PG_VERSION" ] && mv "$data/PG_VERSION" "$data/PG_VERSION.half"
fi
exit $code
"""
)
# Ends what an earlier life left: a swap that stopped in the middle goes back first.
CLEAR: Final = (
    HEAD
    + """
if [ ! -d "$data" ] && [ -d "$data.twokey-old" ]; then mv "$data.twokey-old" "$data" || exit 1; fi
rm -rf "$data.twokey-new"
"""
)
COPY: Final = (
    HEAD
    + _PUT_BACK
    + """
programs=$2 source=$3 slot=$4
umask 077
mkdir -p "$data.twokey-new" || exit 1
cat >"$data.twokey-kept/password" || exit 1
export PGPASSFILE="$data.twokey-kept/password" LC_ALL=C
[ -s "$PGPASSFILE" ] || unset PGPASSFILE
"$programs/pg_basebackup" -D "$data.twokey-new" -d "$source" -X stream -c fast --no-password \\
    ${slot:+-S "$slot"}
code=$?
rm -f "$data.twokey-kept/password"
[ "$code" = 0 ] || exit "$code"
true >"$data.twokey-new/standby.signal" && put_back "$data.twokey-new" || exit 1
sync "$data.twokey-new/standby.signal" 2>/dev/null || :
"""
)
SWAP: Final = (
    HEAD
    + """
[ -f "$data.twokey-new/standby.signal" ] || exit 1
rm -rf "$data.twokey-old"
if [ -d "$data" ]; then mv "$data" "$data.twokey-old" || exit 1; fi
mv "$data.twokey-new" "$data" && rm -f "$data.twokey-kept/half"
"""
)
# Only when the node streams: until then the old folder may be all there is.
DROP_KEPT: Final = HEAD + 'rm -rf "$data.twokey-kept" "$data.twokey-old" "$data.twokey-new"\n'
