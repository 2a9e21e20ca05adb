# What the commands share: the words they say, the paths, the programs they run, and the lab around some of these.

function Say([string] $Text) { if (-not $Quiet) { $Host.UI.WriteLine($Text) } }

function Get-Path { [IO.Path]::Combine([string[]] (@($root) + $args)) }

<# Runs a program whose failure ends the build. -Silently shows its output only when it fails. #>
function Invoke-Program([string] $What, [string[]] $Command, [switch] $Silently) {
    # Typed: of one argument alone, the splat below would make one for each of its characters.
    $program, [string[]] $arguments = $Command
    if ($Silently) {
        $lines = & $program @arguments 2>&1
        if ($LASTEXITCODE -ne 0) { $lines | ForEach-Object { $Host.UI.WriteErrorLine("$_") } }
    }
    else {
        & $program @arguments | Out-Host
    }

    if ($LASTEXITCODE -ne 0) { throw "$What failed (exit status $LASTEXITCODE of '$program')." }
}

function Get-SourceFile {
    $skipped = 'bin', 'obj', 'out', 'artifacts', '.git', 'TestResults'
    $pending = [Collections.Generic.Stack[string]]::new()
    $pending.Push($root)
    while ($pending.Count -gt 0) {
        $directory = $pending.Pop()
        [IO.Directory]::GetFiles($directory)
        foreach ($child in [IO.Directory]::GetDirectories($directory)) {
            if ($skipped -notcontains [IO.Path]::GetFileName($child)) { $pending.Push($child) }
        }
    }
}

function Get-PowerShellPath {
    $path = [Environment]::ProcessPath
    if ([IO.Path]::GetFileNameWithoutExtension($path) -eq 'dotnet') { 'pwsh' } else { $path }
}

<# A lab enclosure around what makes hosts: everything it starts dies with it. #>
function Get-LabCommand([string[]] $Command) { @($enterLab) + $Command }

function Invoke-InLab([string] $What, [string[]] $Command) {
    $program, [string[]] $arguments = Get-LabCommand $Command
    & $program @arguments | Out-Host
    if ($LASTEXITCODE -ne 0) {
        $Host.UI.WriteErrorLine("$What failed (exit status $LASTEXITCODE).")
        exit $LASTEXITCODE
    }
}
