<#
Runs test files written in the language of Pester 5 where Pester itself can't be had. Only the engine's cmdlets.

Discovery first, then the run, as in Pester: the body of Describe and Context runs at discovery and registers blocks
and tests; BeforeAll, BeforeEach, It, AfterEach and AfterAll run later. A block's variables reach its tests and inner
blocks and nothing else.

How scopes come about: the test file's script blocks belong to the caller's session state, this file's functions to the
module's. A script block called with & gets a new scope below the current one *of its own session state*; one that is
dot-sourced uses the current one. So for every block and test one of the small wrappers below, bound to the caller's
session state, is called with & (a new scope there), dot-sources the user's script blocks (they share that scope), and
calls back into the module for what is inside. The wrappers' only variable has a name that no test uses.
#>

Set-StrictMode -Version 3

. ([IO.Path]::Combine($PSScriptRoot, 'Should.ps1'))

# The block that is being discovered, and the test that is running.
$script:currentBlock = $null
$script:currentTest = $null
$script:filter = $null

#region The language

function Describe {
    param(
        [Parameter(Mandatory, Position = 0)] [string] $Name,
        [Parameter(Mandatory, Position = 1)] [scriptblock] $Fixture,
        [string[]] $Tag = @(),
        [switch] $Skip,
        [object] $ForEach
    )

    Add-Block -Name $Name -Body $Fixture -Tag $Tag -Skip $Skip -HasData $PSBoundParameters.ContainsKey('ForEach') -Data $ForEach -Place $MyInvocation
}

function Context {
    param(
        [Parameter(Mandatory, Position = 0)] [string] $Name,
        [Parameter(Mandatory, Position = 1)] [scriptblock] $Fixture,
        [string[]] $Tag = @(),
        [switch] $Skip,
        [object] $ForEach
    )

    Add-Block -Name $Name -Body $Fixture -Tag $Tag -Skip $Skip -HasData $PSBoundParameters.ContainsKey('ForEach') -Data $ForEach -Place $MyInvocation
}

function It {
    param(
        [Parameter(Mandatory, Position = 0)] [string] $Name,
        [Parameter(Mandatory, Position = 1)] [scriptblock] $Test,
        [Alias('TestCases')] [object] $ForEach,
        [string[]] $Tag = @(),
        [switch] $Skip
    )

    $block = Get-BlockAtDiscovery 'It'
    foreach ($data in Get-Case $PSBoundParameters.ContainsKey('ForEach') $ForEach) {
        $block.Children.Add([pscustomobject] @{
                Kind = 'Test'; Name = $Name; Expanded = $Name; Body = $Test; Tag = $Tag; Skip = [bool] $Skip; Data = $data
                Parent = $block; File = $MyInvocation.ScriptName; Line = $MyInvocation.ScriptLineNumber; Selected = $true
                Outcome = 'NotRun'; Error = $null; Reason = ''; Milliseconds = 0.0
            })
    }
}

function BeforeAll { param([Parameter(Mandatory, Position = 0)] [scriptblock] $Scriptblock) (Get-BlockAtDiscovery 'BeforeAll').BeforeAll = $Scriptblock }
function AfterAll { param([Parameter(Mandatory, Position = 0)] [scriptblock] $Scriptblock) (Get-BlockAtDiscovery 'AfterAll').AfterAll = $Scriptblock }
function BeforeEach { param([Parameter(Mandatory, Position = 0)] [scriptblock] $Scriptblock) (Get-BlockAtDiscovery 'BeforeEach').BeforeEach = $Scriptblock }
function AfterEach { param([Parameter(Mandatory, Position = 0)] [scriptblock] $Scriptblock) (Get-BlockAtDiscovery 'AfterEach').AfterEach = $Scriptblock }

function BeforeDiscovery {
    param([Parameter(Mandatory, Position = 0)] [scriptblock] $ScriptBlock)
    . $ScriptBlock
}

function Set-ItResult {
    [CmdletBinding()]
    param(
        [switch] $Skipped,
        [switch] $Inconclusive,
        [string] $Because = ''
    )

    $kind = $Skipped ? 'Skipped' : $Inconclusive ? 'Inconclusive' : $(throw 'Set-ItResult needs -Skipped or -Inconclusive.')
    $record = [Management.Automation.ErrorRecord]::new([Exception]::new($Because), "PesterTest$kind", 'NotSpecified', $null)
    $PSCmdlet.ThrowTerminatingError($record)
}

#endregion
#region Discovery

function Get-BlockAtDiscovery([string] $Command) {
    if ($null -eq $script:currentBlock) { throw "$Command can only be used at discovery, directly in a file, Describe or Context; not inside It or BeforeAll." }
    $script:currentBlock
}

<# The cases of -ForEach, each as a name -> value table; one empty case where there is no -ForEach. #>
function Get-Case([bool] $HasData, [object] $Data) {
    if (-not $HasData) { return [ordered] @{} }
    foreach ($item in @($Data)) {
        $case = [ordered] @{ '_' = $item }
        if ($item -is [Collections.IDictionary]) {
            foreach ($key in @($item.Keys)) { $case["$key"] = $item[$key] }
        }

        $case
    }
}

function New-Block([string] $Name, [object] $Parent, [string[]] $Tag, [bool] $Skip, [Collections.IDictionary] $Data, [string] $File, [int] $Line) {
    [pscustomobject] @{
        Kind = 'Block'; Name = $Name; Expanded = $Name; Tag = $Tag; Skip = $Skip; Data = $Data; Parent = $Parent; File = $File; Line = $Line
        Selected = $true; Children = [Collections.Generic.List[object]]::new()
        BeforeAll = $null; AfterAll = $null; BeforeEach = $null; AfterEach = $null; Error = $null
    }
}

function Add-Block([string] $Name, [scriptblock] $Body, [string[]] $Tag, [bool] $Skip, [bool] $HasData, [object] $Data, [object] $Place) {
    $parent = Get-BlockAtDiscovery 'Describe'
    foreach ($case in Get-Case $HasData $Data) {
        $block = New-Block $Name $parent $Tag $Skip $case $Place.ScriptName $Place.ScriptLineNumber
        $parent.Children.Add($block)
        $script:currentBlock = $block
        try { & (ConvertTo-Bound $discoveryScope $Body) ([pscustomobject] @{ Data = $case; Body = $Body; Arguments = Get-Argument $Body $case }) }
        finally { $script:currentBlock = $parent }
    }
}

<# The part of a case that a script block's own param() asks for. #>
function Get-Argument([scriptblock] $Body, [Collections.IDictionary] $Case) {
    $arguments = @{}
    if ($null -ne $Body.Ast.ParamBlock) {
        foreach ($parameter in $Body.Ast.ParamBlock.Parameters) {
            $name = $parameter.Name.VariablePath.UserPath
            if ($Case.Contains($name)) { $arguments[$name] = $Case[$name] }
        }
    }

    $arguments
}

$sessionStateProperty = [scriptblock].GetProperty('SessionStateInternal', [Reflection.BindingFlags] 'Instance, NonPublic')

<# A copy of a wrapper that runs in the session state to which another script block belongs. #>
function ConvertTo-Bound([scriptblock] $Wrapper, [scriptblock] $Like) {
    $bound = $Wrapper.Ast.GetScriptBlock()
    $sessionStateProperty.SetValue($bound, $sessionStateProperty.GetValue($Like))
    $bound
}

#endregion
#region Wrappers: they run in the test file's session state, never in the module's

$discoveryScope = {
    param($______run)
    foreach ($______name in $______run.Data.Keys) { $ExecutionContext.SessionState.PSVariable.Set("local:$______name", $______run.Data[$______name]) }
    $______arguments = $______run.Arguments
    $null = . $______run.Body @______arguments
}

$fileScope = {
    param($______run)
    $null = . $______run.Path
}

$blockScope = {
    param($______run)
    foreach ($______name in $______run.Data.Keys) { $ExecutionContext.SessionState.PSVariable.Set("local:$______name", $______run.Data[$______name]) }
    try { if ($______run.ExpandName) { $______run.Block.Expanded = . $______run.ExpandName } } catch { $null = $_ }
    & $______run.Announce $______run.Block
    try { if ($______run.Block.BeforeAll) { $null = . $______run.Block.BeforeAll } } catch { $______run.Block.Error = $_ }
    & $______run.Children $______run.Block
    try { if ($______run.Block.AfterAll) { $null = . $______run.Block.AfterAll } } catch { & $______run.TeardownFailed $______run.Block $_ }
}

# The loop that runs once catches a stray break or continue of a test, which would otherwise leave the runner's own loops.
$testScope = {
    param($______run)
    foreach ($______name in $______run.Data.Keys) { $ExecutionContext.SessionState.PSVariable.Set("local:$______name", $______run.Data[$______name]) }
    try { if ($______run.ExpandName) { $______run.Test.Expanded = . $______run.ExpandName } } catch { $null = $_ }
    try {
        do {
            foreach ($______each in $______run.BeforeEach) { $null = . $______each }
            $______arguments = $______run.Arguments
            $null = . $______run.Test.Body @______arguments
        } while ($false)
    }
    catch { $______run.Test.Error = $_ }

    foreach ($______each in $______run.AfterEach) {
        try { $null = . $______each } catch { if (-not $______run.Test.Error) { $______run.Test.Error = $_ } }
    }
}

#endregion
#region Run

<# '<name>' in a test's name becomes the value of $name, '<a.b>' that of $a.b, as the test sees them. "`<" stays as it is. #>
function Get-NameExpansion([string] $Name, [scriptblock] $Like) {
    if (-not $Name.Contains('<')) { return $null }
    $text = [Text.StringBuilder]::new()
    $at = 0
    foreach ($match in [regex]::Matches($Name, '(?<!`)<([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)>')) {
        $null = $text.Append([Management.Automation.Language.CodeGeneration]::EscapeSingleQuotedStringContent($Name.Substring($at, $match.Index - $at)))
        $null = $text.Append("' + `$(`$").Append($match.Groups[1].Value).Append(") + '")
        $at = $match.Index + $match.Length
    }

    $null = $text.Append([Management.Automation.Language.CodeGeneration]::EscapeSingleQuotedStringContent($Name.Substring($at)))
    $expansion = [scriptblock]::Create("('" + $text.ToString() + "').Replace('``<', '<')")
    $sessionStateProperty.SetValue($expansion, $sessionStateProperty.GetValue($Like))
    $expansion
}

function Get-FullName([object] $Item) {
    $names = [Collections.Generic.List[string]]::new()
    for ($at = $Item; $null -ne $at -and $at.Name; $at = $at.Parent) { $names.Insert(0, $at.Expanded) }
    $names -join '.'
}

function Get-Ancestor([object] $Item) {
    for ($at = $Item; $null -ne $at; $at = $at.Parent) { $at }
}

<# Marks what the filters leave, so that nothing is set up for tests that do not run. Returns whether anything is left. #>
function Select-Item([object] $Item) {
    if ($Item.Kind -eq 'Block') {
        $any = $false
        foreach ($child in $Item.Children) { $any = (Select-Item $child) -or $any }
        $Item.Selected = $any
        return $any
    }

    $tags = @(Get-Ancestor $Item | ForEach-Object { $_.Tag })
    $name = Get-FullName $Item
    $Item.Selected = (-not $script:filter.Tag -or @($tags | Where-Object { $script:filter.Tag -contains $_ }).Count -gt 0) -and
        (@($tags | Where-Object { $script:filter.ExcludeTag -contains $_ }).Count -eq 0) -and
        (-not $script:filter.FullName -or @($script:filter.FullName | Where-Object { $name -like $_ }).Count -gt 0)
    $Item.Selected
}

function Test-AnyToRun([object] $Block) {
    foreach ($child in $Block.Children) {
        if (-not $child.Selected -or $child.Skip) { continue }
        if ($child.Kind -eq 'Test' -or (Test-AnyToRun $child)) { return $true }
    }

    $false
}

function Write-Line([string] $Text) { $Host.UI.WriteLine($Text) }

function Get-Indent([object] $Item) { ' ' * (2 * [Math]::Max(0, @(Get-Ancestor $Item).Count - 2)) }

<# "file:line" of the user's code in which an error was raised: its first stack frame outside the runner. #>
function Get-Place([Management.Automation.ErrorRecord] $Record, [object] $Item) {
    foreach ($frame in @("$($Record.ScriptStackTrace)" -split "`n")) {
        if ($frame -match ', (?<file>[^,]+): line (?<line>\d+)\s*$' -and [IO.Path]::GetDirectoryName($Matches.file) -ne $PSScriptRoot) { return "$($Matches.file):$($Matches.line)" }
    }

    "$($Item.File):$($Item.Line)"
}

function Format-Failure([Management.Automation.ErrorRecord] $Record, [object] $Item) {
    $message = $Record.Exception.Message
    if ($Record.FullyQualifiedErrorId -notlike 'PesterAssertionFailed*') { $message = "$($Record.Exception.GetType().Name): $message ($($Record.FullyQualifiedErrorId))" }
    "$message`nat $(Get-Place $Record $Item)"
}

function Complete-Test([object] $Test, [string] $Outcome, [string] $Reason) {
    $Test.Outcome = $Outcome
    $Test.Reason = $Reason
    $mark = @{ Passed = '[+]'; Failed = '[-]'; Skipped = '[!]'; Inconclusive = '[?]' }[$Outcome]
    $time = [int] $Test.Milliseconds
    Write-Line "$(Get-Indent $Test)$mark $($Test.Expanded) ${time}ms"
    if ($Reason) { foreach ($line in $Reason -split "`n") { Write-Line "$(Get-Indent $Test)    $line" } }
    $script:results.Add([pscustomobject] @{ Name = Get-FullName $Test; Outcome = $Outcome; Detail = $Reason; Milliseconds = $Test.Milliseconds; File = $Test.File; Line = $Test.Line })
}

function Invoke-TestItem([object] $Test) {
    $ancestors = @(Get-Ancestor $Test.Parent)
    if ($Test.Skip -or @($ancestors | Where-Object { $_.Skip }).Count -gt 0) {
        Complete-Test $Test 'Skipped' "marked -Skip at $($Test.File):$($Test.Line)"
        return
    }

    $broken = @($ancestors | Where-Object { $_.Error }) | ForEach-Object { $_ }
    if ($broken) {
        $block = @($broken)[-1]
        Complete-Test $Test 'Failed' ("BeforeAll of '$(Get-FullName $block)' failed. " + (Format-Failure $block.Error $block))
        return
    }

    $before = [Collections.Generic.List[scriptblock]]::new()
    $after = [Collections.Generic.List[scriptblock]]::new()
    foreach ($block in $ancestors) {
        if ($block.BeforeEach) { $before.Insert(0, $block.BeforeEach) }
        if ($block.AfterEach) { $after.Add($block.AfterEach) }
    }

    $script:currentTest = $Test
    $watch = [Diagnostics.Stopwatch]::StartNew()
    try {
        & (ConvertTo-Bound $testScope $Test.Body) ([pscustomobject] @{
                Test = $Test; Data = $Test.Data; BeforeEach = $before; AfterEach = $after
                Arguments = Get-Argument $Test.Body $Test.Data; ExpandName = Get-NameExpansion $Test.Name $Test.Body
            })
    }
    finally {
        $script:currentTest = $null
        $Test.Milliseconds = $watch.Elapsed.TotalMilliseconds
    }

    if (-not $Test.Error) { Complete-Test $Test 'Passed' '' }
    elseif ($Test.Error.FullyQualifiedErrorId -like 'PesterTestSkipped*') { Complete-Test $Test 'Skipped' ($Test.Error.Exception.Message ? $Test.Error.Exception.Message : 'no reason was given') }
    elseif ($Test.Error.FullyQualifiedErrorId -like 'PesterTestInconclusive*') { Complete-Test $Test 'Inconclusive' $Test.Error.Exception.Message }
    else { Complete-Test $Test 'Failed' (Format-Failure $Test.Error $Test) }
}

$announce = { param($block) if ($block.Name) { Write-Line "$(Get-Indent $block)$($block.Expanded)" } }
$children = { param($block) foreach ($child in $block.Children) { if ($child.Selected) { if ($child.Kind -eq 'Test') { Invoke-TestItem $child } else { Invoke-BlockItem $child } } } }
$teardownFailed = {
    param($block, $record)
    $detail = Format-Failure $record $block
    Write-Line "$(Get-Indent $block)  [-] AfterAll failed: $detail"
    $script:results.Add([pscustomobject] @{ Name = (Get-FullName $block) + ' (AfterAll)'; Outcome = 'Failed'; Detail = $detail; Milliseconds = 0.0; File = $block.File; Line = $block.Line })
}

function Invoke-BlockItem([object] $Block) {
    $skipped = @(Get-Ancestor $Block | Where-Object { $_.Skip }).Count -gt 0
    if ($skipped -or -not (Test-AnyToRun $Block)) {
        # Nothing in here runs, so nothing is set up for it.
        & $announce $Block
        & $children $Block
        return
    }

    & (ConvertTo-Bound $blockScope $script:callerBlock) ([pscustomobject] @{
            Block = $Block; Data = $Block.Data; Announce = $announce; Children = $children; TeardownFailed = $teardownFailed
            ExpandName = Get-NameExpansion $Block.Name $script:callerBlock
        })
}

<#
.SYNOPSIS
Runs test files. Returns an object for each test: Name, Outcome (Passed, Failed, Skipped, Inconclusive), Detail, Milliseconds, File, Line.

.PARAMETER Path
The files, in the order in which they are run.

.PARAMETER Scope
Any script block of the caller: tests see what its session state sees.

.PARAMETER FullName
Wildcard patterns; only tests whose full name (Describe.Context.It) is like one of them run.
#>
function Invoke-TestFile {
    param(
        [Parameter(Mandatory)] [string[]] $Path,
        [Parameter(Mandatory)] [scriptblock] $Scope,
        [string[]] $Tag = @(),
        [string[]] $ExcludeTag = @(),
        [string[]] $FullName = @()
    )

    $script:filter = [pscustomobject] @{ Tag = $Tag; ExcludeTag = $ExcludeTag; FullName = $FullName }
    $script:callerBlock = $Scope
    $script:results = [Collections.Generic.List[object]]::new()
    foreach ($file in $Path) {
        Write-Line ''
        Write-Line "Running $file"
        $root = New-Block '' $null @() $false ([ordered] @{}) $file 1
        $script:currentBlock = $root
        try { & (ConvertTo-Bound $fileScope $Scope) ([pscustomobject] @{ Path = $file }) }
        catch {
            $detail = Format-Failure $_ $root
            Write-Line "[-] Discovery failed: $detail"
            $script:results.Add([pscustomobject] @{ Name = [IO.Path]::GetFileName($file) + ' (discovery)'; Outcome = 'Failed'; Detail = $detail; Milliseconds = 0.0; File = $file; Line = 1 })
            continue
        }
        finally { $script:currentBlock = $null }

        if (Select-Item $root) { Invoke-BlockItem $root }
    }

    $script:results
}

#endregion

Export-ModuleMember -Function Describe, Context, It, BeforeAll, AfterAll, BeforeEach, AfterEach, BeforeDiscovery, Set-ItResult, Should, Invoke-TestFile
