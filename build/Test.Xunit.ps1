# ./build.sh Test: a suite of xunit, that is, a project under Tests.

function Invoke-XunitSuite([string] $Suite, [string] $Project, [string] $Results) {
    $name = [IO.Path]::GetFileNameWithoutExtension($Project)
    $assembly = [IO.Path]::Combine([IO.Path]::GetDirectoryName($Project), 'bin', $configuration, 'net10.0', "$name.dll")
    $trx = [IO.Path]::Combine($Results, "$Suite.trx")
    $command = @('dotnet', 'test', $assembly, '--logger', "trx;LogFileName=$Suite.trx", '--logger', 'console;verbosity=quiet', '--results-directory', $Results)
    if ($Filter) { $command += @('--filter', "FullyQualifiedName~$Filter") }
    $command += @('--', 'RunConfiguration.TestSessionTimeout=600000')
    if ($Suite -eq 'Kernel') {
        # It looks at machines of both QEMUs that are supported.
        & ([IO.Path]::Combine($root, 'Tests', 'Lab', 'prepare')) qemu-10.0
        # And it starts a guest under KVM on a host of the lab.
        $command = Get-LabCommand $command
    }
    elseif ($Suite -eq 'Vm') {
        # Its guests run three kernels; there is no network inside the lab to fetch them.
        & ([IO.Path]::Combine($root, 'Tests', 'Lab', 'prepare')) kernel-6.1 kernel-6.12 kernel-6.12-generic kexec
        $command = Get-LabCommand $command
    }

    $program, $arguments = $command
    $watch = [Diagnostics.Stopwatch]::StartNew()
    $said = & $program @arguments 2>&1
    $status = $LASTEXITCODE
    $before = $tally.Failed
    $count = 0
    if ([IO.File]::Exists($trx)) {
        $document = [Xml.XmlDocument]::new()
        $document.Load($trx)
        $names = [Xml.XmlNamespaceManager]::new($document.NameTable)
        $names.AddNamespace('t', 'http://microsoft.com/schemas/VisualStudio/TeamTest/2010')
        foreach ($result in $document.SelectNodes('//t:UnitTestResult', $names)) {
            $count++
            $message = $result.SelectSingleNode('t:Output/t:ErrorInfo/t:Message', $names)
            $trace = $result.SelectSingleNode('t:Output/t:ErrorInfo/t:StackTrace', $names)
            $test = $result.GetAttribute('testName')
            switch ($result.GetAttribute('outcome')) {
                'Passed' { $tally.Passed++ }
                'NotExecuted' { Add-Skip $Suite $test ($message ? $message.InnerText : '') }
                default { Add-Failure $Suite $test "$($message ? $message.InnerText : $_)`n$($trace ? $trace.InnerText : '')" }
            }
        }
    }

    if ($status -ne 0 -and $tally.Failed -eq $before) {
        Add-Failure $Suite 'the test program ended abnormally' "exit status $status`n$($said -join "`n")"
    }
    elseif ($count -eq 0 -and -not $Filter) {
        Add-Failure $Suite 'no test was found' "in $assembly"
    }

    $Host.UI.WriteLine("$count tests, $([int] $watch.Elapsed.TotalSeconds) s")
}
