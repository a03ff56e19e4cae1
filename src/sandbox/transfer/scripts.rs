//! What the sandbox that has the files runs: Bash and the tools of its image. Each gets the folder of
//! the copies, the port behind which we are, and names.

/// Lists the copies that are kept, takes what differs as a tar archive, makes a run's own copies of
/// them, and prints the clock. The names are `KEPT=OWN`; `OWN` is empty where the run only reads.
///
/// We answer the list with the names of what is gone, each ended by a NUL, an empty one, and the
/// archive.
pub const TAKE: &str = r#"set -e
cd "$1"
exec 3<>"/dev/tcp/127.0.0.1/$2"
shift 2
for pair in "$@"; do mkdir -p "kept/${pair%%=*}"; done
for pair in "$@"; do
    find "kept/${pair%%=*}" -printf '%y %m %s %T@ %p\0%l\0' \( -type d ! -perm -700 \) -exec chmod u+rwx {} \; >&3
done
printf '\0' >&3
while IFS= read -r -d '' gone <&3 && [ -n "$gone" ]; do rm -rf -- "$gone"; done
tar --extract --preserve-permissions --no-same-owner <&3
cat <&3 >/dev/null
for pair in "$@"; do
    own=${pair#*=}
    [ -z "$own" ] || cp --archive --reflink=auto "kept/${pair%%=*}" "own/$own"
done
date +%s.%N"#;

/// Lists folders, takes the names of those files that are wanted, and gives these as a tar archive. A
/// second connection is waited for at the end, which we end when all has come: what is still on its
/// way when a command ends is lost.
///
/// What the agent has shut is opened for as long as that takes.
pub const GIVE: &str = r#"set -e
cd "$1/own"
port=$2
exec 3<>"/dev/tcp/127.0.0.1/$port"
shift 2
date +%s.%N
find "$@" -maxdepth 257 -printf '%y %m %C@ %s %T@ %p\0' \
    \( -type d ! -perm -500 -o -type f ! -perm -400 \) -fprintf /tmp/shut '%m\0%p\0' -exec chmod u+rX {} \; >&3
printf '\0' >&3
tar --create --format=posix --hard-dereference --no-recursion --null --verbatim-files-from --files-from=- <&3 >&3
while IFS= read -r -d '' mode && IFS= read -r -d '' path; do modes+=("$mode"); paths+=("$path"); done </tmp/shut
for ((at = ${#paths[@]} - 1; at >= 0; at--)); do chmod "${modes[at]}" "${paths[at]}"; done
exec 3>&-
cat <"/dev/tcp/127.0.0.1/$port""#;

/// Adds up the blocks of all inodes, and counts the names. What the agent has shut can grow all the
/// same, so it is opened for as long as that takes.
pub const USAGE: &str = r#"cd "$1/own"
shift 2
find "$@" -printf '%i %b\n' -type d ! -perm -500 -fprintf /tmp/shut '%m\0%p\0' -exec chmod u+rx {} \; |
    awk '!seen[$1]++ { sum += $2 } END { printf "%.0f %d\n", sum * 512, NR }'
while IFS= read -r -d '' mode && IFS= read -r -d '' path; do modes+=("$mode"); paths+=("$path"); done </tmp/shut
for ((at = ${#paths[@]} - 1; at >= 0; at--)); do chmod "${modes[at]}" "${paths[at]}"; done"#;
