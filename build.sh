#!/usr/bin/env bash
# Finds a PowerShell (pwsh, else our small one, which it builds) and runs build.ps1 with it.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1 DOTNET_SKIP_FIRST_TIME_EXPERIENCE=1
# No build servers that outlive the build: neither a lab nor CI may find a process left over.
export MSBUILDDISABLENODEREUSE=1 DOTNET_CLI_USE_MSBUILD_SERVER=0 UseSharedCompilation=false
export HOME="${HOME:-/root}"
export PSModulePath="$root/out${PSModulePath:+:$PSModulePath}"
shell="$root/artifacts/shell/fctrans-shell"

usage() {
    cat <<'USAGE'
./build.sh Build                 compile everything, stage the module under out/FCtrans
./build.sh Test [-Only Unit,Abi,Kernel,Vm,Pester] [-Filter TEXT]
./build.sh Demo                  install what is missing, build, split a live VM over three lab hosts
./build.sh Bench NAME            run bench/NAME, write artifacts/bench/NAME.json
./build.sh Shell [-Command TEXT | -File SCRIPT …]
./build.sh Clean                 remove what was built (downloads under artifacts/cache stay)
USAGE
}

if ! command -v dotnet >/dev/null; then
    echo "build.sh: the .NET SDK 10 is needed: https://dotnet.microsoft.com/download/dotnet/10.0 (no 'dotnet' in PATH)" >&2
    exit 1
fi

# Sets powershell=(…), building our shell when its sources are newer than it. FCTRANS_SHELL=own prefers it to pwsh.
find_powershell() {
    if [[ ${FCTRANS_SHELL:-} != own ]] && command -v pwsh >/dev/null; then
        powershell=(pwsh)
        return
    fi

    powershell=("$shell")
    local sources=("$root/src/FCtrans.Shell" "$root/Directory.Build.props" "$root/Directory.Packages.props")
    mkdir -p "$root/artifacts"
    (
        flock 9 # two builds side by side: the second waits and finds it done
        if [[ ! -x $shell ]] || [[ -n $(find "${sources[@]}" \( -name bin -o -name obj \) -prune -o -type f -newer "$shell" -print -quit) ]]; then
            echo "build.sh: building the shell" >&2
            # A new directory, then a rename: a shell that is running keeps its files.
            rm -rf "$root/artifacts/shell.new"
            if ! dotnet build "$root/src/FCtrans.Shell/FCtrans.Shell.csproj" -c Release -o "$root/artifacts/shell.new" \
                -v quiet -clp:NoSummary >"$root/artifacts/shell.log" 2>&1; then
                cat "$root/artifacts/shell.log" >&2
                exit 1
            fi
            touch "$root/artifacts/shell.new/fctrans-shell"
            rm -rf "$root/artifacts/shell.old"
            if [[ -d $root/artifacts/shell ]]; then mv "$root/artifacts/shell" "$root/artifacts/shell.old"; fi
            mv "$root/artifacts/shell.new" "$root/artifacts/shell"
            rm -rf "$root/artifacts/shell.old"
        fi
    ) 9>"$root/artifacts/shell.lock" || exit 1
}

target=${1:-}
case "${target,,}" in
'' | help | -h | --help | '-?')
    usage
    exit 0
    ;;
shell)
    shift
    find_powershell
    # Says nothing when everything is up to date, so that only the command's own output appears.
    "${powershell[@]}" -NoProfile -NonInteractive -File "$root/build.ps1" Build -Quiet >&2 </dev/null
    exec "${powershell[@]}" "$@"
    ;;
*)
    find_powershell
    exec "${powershell[@]}" -NoProfile -NonInteractive -File "$root/build.ps1" "$@"
    ;;
esac
