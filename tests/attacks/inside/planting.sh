# Attempts on places that tools of the host execute or trust, all of which exist, in a view of the
# workspace. A line is printed for each; the host looks for what of it gets through. $1 is a file that
# a planted program would make.
evil="#!/bin/sh
touch $1"
try() { name=$1; shift; if ("$@") > /dev/null 2>&1; then echo "$name: SUCCEEDED"; else echo "$name: denied"; fi; }
put() { printf '%s\n' "$evil" > "$1" && chmod 755 "$1"; }
replace() { printf '%s\n' "$evil" > new && chmod 755 new && mv -f new "$1"; }
link() { printf '%s\n' "$evil" > new && ln -sfn "$PWD/new" "$1"; }
py() { python -c "import os, sys; $1"; }

for hook in pre-commit post-commit post-checkout fsmonitor-watchman; do
    try "hook $hook written" put .git/hooks/$hook
    try "hook $hook replaced" replace .git/hooks/$hook
    try "hook $hook linked" link .git/hooks/$hook
done
try "hook removed" rm -f .git/hooks/pre-commit
try "hook made executable" chmod 755 .git/hooks/pre-commit.sample
try "hooks moved" mv .git/hooks .git/hooks2
try "hooks removed" rm -rf .git/hooks
try "hooks linked" ln -sfn /workspace/evil .git/hooks
try "hooks exchanged" py "os.makedirs('e', exist_ok=True); import ctypes; sys.exit(ctypes.CDLL(None).renameat2(-100, b'e', -100, b'.git/hooks', 2))"
try "repository moved" mv .git .git2
try "repository exchanged" py "os.makedirs('e', exist_ok=True); import ctypes; sys.exit(ctypes.CDLL(None).renameat2(-100, b'e', -100, b'.git', 2))"
try "repository removed" rmdir .git
for setting in core.fsmonitor core.hooksPath core.pager core.editor core.sshCommand diff.external filter.x.clean alias.status credential.helper gpg.program include.path; do
    try "setting $setting" git config $setting /tmp/evil
done
try "settings appended" sh -c 'printf "[core]\n\tfsmonitor = touch %s\n" "$1" >> .git/config' sh "$1"
try "settings truncated" truncate -s 0 .git/config
try "settings replaced" replace .git/config
try "settings linked" link .git/config
try "settings hard linked out" ln .git/config stolen
try "settings by another descriptor" py "os.write(os.open('/proc/self/fd/%d' % os.open('.git/config', os.O_RDONLY), os.O_WRONLY | os.O_APPEND), b'x')"
try "settings by the root of a process" sh -c 'echo x >> /proc/self/root/workspace/.git/config'
try "settings by the folder of a process" sh -c 'echo x >> /proc/self/cwd/.git/config'
try "settings by a path with dots" sh -c 'echo x >> sub/../.git/./config'
try "settings mapped" py "import mmap; f = os.open('.git/config', os.O_RDWR); mmap.mmap(f, 0)"
try "settings given away" chmod 777 .git/config
try "settings with an attribute" py "os.setxattr('.git/config', 'user.x', b'x')"
try "settings dated" touch -t 200001010000 .git/config
try "bind over" mount --bind evil .git/hooks
try "nested repository's hook" put sub/.git/hooks/post-checkout
try "nested repository's settings" git -C sub config core.fsmonitor /tmp/evil
try "nested repository moved" mv sub/.git sub/.git2
mv sub sub2
try "moved repository's hook" put sub2/.git/hooks/post-checkout
try "moved repository's settings" git -C sub2 config core.fsmonitor /tmp/evil
mv sub2 sub
try "module's settings" git config -f .git/modules/m/config core.fsmonitor /tmp/evil
for file in .envrc .mcp.json; do
    try "$file written" put $file
    try "$file appended" sh -c 'echo x >> $1' sh $file
    try "$file replaced" replace $file
    try "$file linked" link $file
    try "$file removed" rm -f $file
    try "$file moved" mv $file moved
done
for folder in .vscode .idea .claude .cursor .husky .github/workflows; do
    try "$folder file added" put $folder/tasks.json
    try "$folder file changed" put $folder/there
    try "$folder folder added" mkdir $folder/new
    try "$folder moved" mv $folder moved
    try "$folder removed" rm -rf $folder
    try "$folder linked" ln -sfn evil $folder
done
try "parent of workflows moved" mv .github .github2
try "parent of workflows exchanged" py "os.makedirs('e', exist_ok=True); import ctypes; sys.exit(ctypes.CDLL(None).renameat2(-100, b'e', -100, b'.github', 2))"
rm -rf new e
# What needs nobody's yes, so that a failure above is no failure of everything.
try "control file written" put ordinary
try "control file replaced" replace ordinary
try "control folder moved" sh -c 'mkdir one && mv one two'
try "control commit" sh -c 'git add ordinary && git -c user.name=a -c user.email=a@b commit -qm inside'
# Other case: other files where case counts, and git on the host does not look there.
mkdir -p .GIT/hooks .Git && put .GIT/hooks/pre-commit && put .ENVRC && cp .git/config .Git/config
