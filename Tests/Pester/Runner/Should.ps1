# The assertions: the operators of Pester 5 that the tests use, with its meaning of pipeline input. Part of FCtrans.Pester.psm1.

function Format-Value([object] $Value) {
    if ($null -eq $Value) { return '$null' }
    if ($Value -is [string]) { return "'$Value'" }
    if ($Value -is [bool]) { return $Value ? '$true' : '$false' }
    if ($Value -is [type]) { return "[$($Value.FullName)]" }
    if ($Value -is [scriptblock]) { return "{$Value}" }
    if ($Value -is [Collections.IDictionary]) { return '@{' + (@($Value.Keys | ForEach-Object { "$_=$(Format-Value $Value[$_])" }) -join '; ') + '}' }
    if ($Value -is [Collections.IEnumerable]) { return '@(' + (@($Value | ForEach-Object { Format-Value $_ }) -join ', ') + ')' }
    "$Value"
}

<# Equal as Pester's -Be: arrays element by element, everything else by the engine's -eq or -ceq. #>
function Test-Equal([object] $Actual, [object] $Expected, [bool] $CaseSensitive) {
    $actualIsList = $Actual -is [Collections.IEnumerable] -and $Actual -isnot [string] -and $Actual -isnot [Collections.IDictionary]
    $expectedIsList = $Expected -is [Collections.IEnumerable] -and $Expected -isnot [string] -and $Expected -isnot [Collections.IDictionary]
    if ($actualIsList -or $expectedIsList) {
        $a = @($Actual)
        $b = @($Expected)
        if ($a.Count -ne $b.Count) { return $false }
        for ($i = 0; $i -lt $a.Count; $i++) {
            if (-not (Test-Equal $a[$i] $b[$i] $CaseSensitive)) { return $false }
        }

        return $true
    }

    if ($null -eq $Actual -or $null -eq $Expected) { return $null -eq $Actual -and $null -eq $Expected }
    $CaseSensitive ? [bool] ($Actual -ceq $Expected) : [bool] ($Actual -eq $Expected)
}

function Test-NullOrEmpty([object[]] $List) {
    if ($null -eq $List -or $List.Count -eq 0) { return $true }
    if ($List.Count -gt 1) { return $false }
    $value = $List[0]
    if ($null -eq $value) { return $true }
    if ($value -is [string]) { return $value.Length -eq 0 }
    if ($value -is [Collections.ICollection]) { return $value.Count -eq 0 }
    $false
}

<# Each operator: whether it takes all of the pipeline's input at once, its test ($actual, $expected), and its words. #>
$operators = @{
    Be                   = @{ Whole = $true; Words = ''; Test = { param($a, $e) Test-Equal $a $e $false } }
    BeExactly            = @{ Whole = $true; Words = ' exactly'; Test = { param($a, $e) Test-Equal $a $e $true } }
    BeTrue               = @{ Words = ' a true value'; Unary = $true; Test = { param($a) [bool] $a } }
    BeFalse              = @{ Words = ' a false value'; Unary = $true; Test = { param($a) -not $a } }
    BeNullOrEmpty        = @{ Whole = $true; Words = ' $null or empty'; Unary = $true; Test = { param($a) Test-NullOrEmpty $a } }
    BeGreaterThan        = @{ Words = ' a value greater than'; Test = { param($a, $e) $a -gt $e } }
    BeGreaterOrEqual     = @{ Words = ' a value greater than or equal to'; Test = { param($a, $e) $a -ge $e } }
    BeLessThan           = @{ Words = ' a value less than'; Test = { param($a, $e) $a -lt $e } }
    BeLessOrEqual        = @{ Words = ' a value less than or equal to'; Test = { param($a, $e) $a -le $e } }
    BeIn                 = @{ Words = ' a member of'; Test = { param($a, $e) @($e) -contains $a } }
    Contain              = @{ Whole = $true; Words = ' a collection that contains'; Test = { param($a, $e) @($a) -contains $e } }
    HaveCount            = @{ Whole = $true; Words = ' a collection of this many items:'; Test = { param($a, $e) @($a).Count -eq $e } }
    Match                = @{ Words = ' a match of the regular expression'; Test = { param($a, $e) $a -match $e } }
    MatchExactly         = @{ Words = ' a match (by case) of the regular expression'; Test = { param($a, $e) $a -cmatch $e } }
    BeLike               = @{ Words = ' a value like'; Test = { param($a, $e) $a -like $e } }
    BeLikeExactly        = @{ Words = ' a value like (by case)'; Test = { param($a, $e) $a -clike $e } }
    BeOfType             = @{ Words = ' a value of the type'; Test = { param($a, $e) $a -is ($e -is [type] ? $e : [type] "$e".Trim('[', ']')) } }
    Exist                = @{ Words = ' an existing path'; Unary = $true; Test = { param($a) [IO.File]::Exists($a) -or [IO.Directory]::Exists($a) } }
    FileContentMatch     = @{ Words = ' a file whose content matches'; Test = { param($a, $e) [IO.File]::ReadAllText($a) -match "(?m)$e" } }
    HaveParameter        = @{ Words = ' a command with the parameter'; Test = { param($a, $e) $a.Parameters.ContainsKey($e) } }
}

function New-AssertionError([string] $Message) {
    [Management.Automation.ErrorRecord]::new([Exception]::new($Message), 'PesterAssertionFailed', 'InvalidResult', $null)
}

<# Runs the script block and compares what it throws. Returns the error record, or throws an assertion's. #>
function Test-Throw([object] $Action, [bool] $Not, [string] $ExpectedMessage, [string] $ErrorId, [object] $ExceptionType, [string] $Reason) {
    if ($Action -isnot [scriptblock]) { throw [ArgumentException]::new('Should -Throw needs a script block: { … } | Should -Throw') }
    $thrown = $null
    try { $null = & $Action }
    catch { $thrown = $_ }

    if ($Not) {
        if ($null -ne $thrown) { throw (New-AssertionError "Expected no exception to be thrown$Reason, but '$($thrown.Exception.Message)' was thrown ($($thrown.FullyQualifiedErrorId)) at $(Get-Place $thrown $script:currentTest).") }
        return
    }

    if ($null -eq $thrown) { throw (New-AssertionError "Expected an exception to be thrown$Reason, but none was.") }
    $wrong = @(
        if ($ExpectedMessage -and $thrown.Exception.Message -notlike $ExpectedMessage) { "the message like '$ExpectedMessage'" }
        if ($ErrorId -and $thrown.FullyQualifiedErrorId -notlike $ErrorId) { "the FullyQualifiedErrorId '$ErrorId'" }
        if ($ExceptionType -and $thrown.Exception -isnot ($ExceptionType -as [type])) { "the type [$ExceptionType]" }
    )
    if ($wrong.Count -gt 0) {
        throw (New-AssertionError "Expected an exception with $($wrong -join ' and ')$Reason, but got [$($thrown.Exception.GetType().FullName)] '$($thrown.Exception.Message)' ($($thrown.FullyQualifiedErrorId)).")
    }

    $thrown
}

function Should {
    [CmdletBinding()]
    param(
        [Parameter(Position = 0)] [AllowNull()] [object] $ExpectedValue,
        [Parameter(ValueFromPipeline)] [object] $ActualValue,
        [switch] $Not, [string] $Because,
        [switch] $Be, [switch] $BeExactly, [switch] $BeTrue, [switch] $BeFalse, [switch] $BeNullOrEmpty,
        [switch] $BeGreaterThan, [switch] $BeGreaterOrEqual, [switch] $BeLessThan, [switch] $BeLessOrEqual,
        [switch] $BeIn, [switch] $Contain, [switch] $HaveCount, [switch] $Match, [switch] $MatchExactly,
        [switch] $BeLike, [switch] $BeLikeExactly, [switch] $BeOfType, [switch] $Exist, [switch] $FileContentMatch, [switch] $HaveParameter,
        [switch] $Throw, [string] $ExpectedMessage, [string] $ErrorId, [object] $ExceptionType, [switch] $PassThru
    )

    begin {
        $piped = [Collections.Generic.List[object]]::new()
        $fromPipeline = -not $PSBoundParameters.ContainsKey('ActualValue')
    }

    process {
        if ($fromPipeline -and $MyInvocation.ExpectingInput) { $piped.Add($ActualValue) }
    }

    end {
        $reason = $Because ? ", because $($Because -replace '^because ')," : ''
        if (-not $fromPipeline) { $piped.Add($ActualValue) }
        if ($Throw) {
            if ($PSBoundParameters.ContainsKey('ExpectedValue')) { $ExpectedMessage = $ExpectedValue }
            try { $record = Test-Throw ($piped.Count -gt 0 ? $piped[0] : $null) $Not $ExpectedMessage $ErrorId $ExceptionType $reason.TrimEnd(',') }
            catch { $PSCmdlet.ThrowTerminatingError($_) }
            if ($PassThru) { $record }
            return
        }

        $chosen = @($PSBoundParameters.Keys | Where-Object { $operators.ContainsKey($_) })
        if ($chosen.Count -ne 1) { throw [ArgumentException]::new('Should needs exactly one operator, for example: $value | Should -Be 3') }
        $operator = $operators[$chosen[0]]
        $unary = $operator.ContainsKey('Unary')
        if (-not $unary -and -not $PSBoundParameters.ContainsKey('ExpectedValue')) { throw [ArgumentException]::new("Should -$($chosen[0]) needs a value to compare with.") }

        # What comes through the pipeline is a list for the operators that look at lists, else each item is looked at.
        # The unary comma in the calls keeps a list from being unrolled on its way into the test.
        if ($operator.ContainsKey('Whole')) {
            $actual = $piped.Count -eq 1 ? $piped[0] : $piped.ToArray()
            if ($chosen[0] -eq 'BeNullOrEmpty') { $actual = $piped.ToArray() }
            $items = , $actual
        }
        else { $items = $piped.Count -eq 0 ? @($null) : $piped.ToArray() }

        foreach ($item in $items) {
            $holds = [bool] (& $operator.Test $item $ExpectedValue)
            if ($holds -ne [bool] $Not) { continue }
            $wanted = $unary ? '' : ' ' + (Format-Value $ExpectedValue)
            $message = "Expected$($Not ? ' not' : '')$($operator.Words)$wanted$reason" + ($reason ? '' : ',') + " but got $(Format-Value $item)."
            $PSCmdlet.ThrowTerminatingError((New-AssertionError $message))
        }
    }
}
