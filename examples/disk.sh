# Bash: parameters are assigned from $1, $2 …; the last line printed is the result.
directory="${1:-/}"

echo "looking at $directory"
df --output=pcent "$directory" | tail -n 1 | tr -d ' '
