# shellcheck shell=bash
# Sourced by tests/run and tests/live/install: commands with names, run side by side as far as the needs of each allow.
#
#   section NAME "NEED ..." COMMAND ...   declares one, after those that it needs: it starts when they have passed; with a question mark
#                                         (NEED?) when that one has ended, however it ended. A need that is not declared is there already.
#   run_sections                          runs all, goes on after a failure, and returns whether all passed
#   summary                               what failed, in few lines; then a line for each: outcome, time, CPU
#
# Those that are declared first begin first, `sections_at_once` of them side by side (8 unless that is set).
#
# What each prints is kept and shown in one piece when it ends, and what failed in it once more at its end. MILLRACE_SKIP="NAME ..." leaves sections out, as if they had passed. An
# interrupt (Ctrl-C, SIGTERM, SIGHUP) ends all that run, by their process groups, and removes their temporary files.

set -m # each section gets a process group of its own
sections_folder=$(mktemp -d "${TMPDIR:-/tmp}/millrace.XXXXXX")
section_names=()
declare -A section_needs section_command section_outcome section_begun
declare -A section_pid=()

section() {
  section_names+=("$1")
  section_needs[$1]=$2
  section_command[$1]=$(printf ' %q' "${@:3}")
  section_outcome[$1]=waiting
}

run_sections() {
  local name pid code
  while :; do
    for name in "${section_names[@]}"; do
      [ "${section_outcome[$name]}" != waiting ] || [ ${#section_pid[@]} -ge "${sections_at_once:-8}" ] || begin_if_due "$name"
    done
    [ ${#section_pid[@]} -gt 0 ] || break
    wait -n -p pid "${section_pid[@]}" && code=0 || code=$?
    for name in "${!section_pid[@]}"; do
      [ "${section_pid[$name]}" != "$pid" ] || ended "$name" $code
    done
  done
  for name in "${section_names[@]}"; do
    [[ ${section_outcome[$name]} == @(passed|skipped)* ]] || return 1
  done
}

begin_if_due() { # name
  local need
  for need in ${section_needs[$1]}; do
    case ${section_outcome[${need%\?}]:-there already} in
      waiting | running) return 0 ;;
      passed* | skipped | "there already") ;;
      *) [[ $need == *\? ]] || { section_outcome[$1]="NOT RUN, for $need failed"; return 0; } ;;
    esac
  done
  if [[ " ${MILLRACE_SKIP:-} " == *" $1 "* ]]; then
    section_outcome[$1]=skipped
    return 0
  fi
  section_outcome[$1]=running section_begun[$1]=$SECONDS
  echo "--- $1 begins at $SECONDS s:${section_command[$1]}"
  # Temporary files in a folder that goes with the run: what is killed leaves some.
  (
    trap 'times > "$sections_folder/$1.times"' EXIT
    TMPDIR=$sections_folder eval "${section_command[$1]}"
  ) < /dev/null > "$sections_folder/$1.out" 2>&1 &
  section_pid[$1]=$!
}

ended() { # name, exit code
  local outcome=passed
  [ "$2" = 0 ] || outcome="FAILED with exit code $2"
  unset "section_pid[$1]"
  section_outcome[$1]="$outcome in $((SECONDS - section_begun[$1])) s, CPU $(cpu_seconds < "$sections_folder/$1.times") s"
  printf '\n=== %s:%s\n' "$1" "${section_command[$1]}"
  cat "$sections_folder/$1.out"
  [ "$2" = 0 ] || failures "$1"
  printf '=== %s %s\n\n' "$1" "${section_outcome[$1]}"
}

# Of each test that failed the name and the cause, of compilers the errors: few enough lines for who sees only the last ones.
failures() { # name of a section
  local shown
  shown=$(awk '
    /^---- .* ----$/ { # one test: what a panic says, else its first lines
      print; left = 10; waits = / stdout ----$/; next
    }
    /^failures:$/ { left = 0 }
    /^error(\[|:)/ && left == 0 { left = 4; waits = 0 }
    waits && / panicked at / { waits = 0 }
    /^ +[0-9]+: |^ +at |^stack backtrace:|^note: |^$/ { next }
    left > 0 && !waits { print substr($0, 1, 400); left-- }
  ' "$sections_folder/$1.out" | head -n 30)
  printf '=== what failed in %s\n%s\n' "$1" "${shown:-no test and no compiler says so: the last lines above}"
}

cpu_seconds() { # reads what bash's `times` prints; the last line is of all processes that ended
  awk -F '[ms ]+' 'END { printf "%.0f", $1 * 60 + $2 + $3 * 60 + $4 }'
}

summary() {
  local name cpu
  for name in "${section_names[@]}"; do
    [[ ${section_outcome[$name]} != FAILED* ]] || failures "$name"
  done
  printf '\n=== summary\n'
  for name in "${section_names[@]}"; do
    printf '%-12s %s\n' "$name" "${section_outcome[$name]}"
  done
  times > "$sections_folder/times" # not by a pipe, whose side is another process
  cpu=$(cpu_seconds < "$sections_folder/times")
  printf '%-12s %s s, CPU %s s: on %s cores never less than %s s\n' all $SECONDS "$cpu" "$(nproc)" $((cpu / $(nproc)))
}

end_sections() {
  local pid still tries
  exec 2> /dev/null # bash would tell of each that is ended
  for pid in "${section_pid[@]}"; do kill -TERM -- "-$pid"; done
  for tries in {1..100}; do
    still=()
    for pid in "${section_pid[@]}"; do ! kill -0 -- "-$pid" || still+=("$pid"); done
    [ ${#still[@]} -gt 0 ] || break
    sleep 0.1
  done
  for pid in "${still[@]}"; do kill -KILL -- "-$pid"; done
  rm -rf "$sections_folder"
}

trap end_sections EXIT
for sections_signal in INT:130 TERM:143 HUP:129; do
  # shellcheck disable=SC2064 # the code is known now
  trap "echo 'interrupted: ends all that run' >&2; exit ${sections_signal#*:}" "${sections_signal%:*}"
done
