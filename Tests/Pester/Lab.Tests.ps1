# The lab leaves nothing behind, whatever ends it, and labs beside each other don't meet. Runs inside an enclosure itself
# (as all Pester files do), so what these tests compare is not disturbed by anything else on the machine.

BeforeAll {
    $root = [IO.Path]::GetFullPath([IO.Path]::Combine($PSScriptRoot, '..', '..'))
    $enter = [IO.Path]::Combine($root, 'Tests', 'Lab', 'enter')
    $module = [IO.Path]::Combine($root, 'out', 'FCtrans.Lab', 'FCtrans.Lab.psd1')

    function Wait-Until([scriptblock] $Condition, [string] $What, [int] $TimeoutSeconds = 60) {
        $deadline = [DateTime]::UtcNow.AddSeconds($TimeoutSeconds)
        while (-not (& $Condition)) {
            if ([DateTime]::UtcNow -gt $deadline) { throw "Not within $TimeoutSeconds s: $What" }
            [void] [Threading.Thread]::CurrentThread.Join(20)
        }
    }

    # What an enclosure could leave: processes, namespaces, mounts, network devices, files.
    function Get-Trace {
        $processes = @([IO.Directory]::GetDirectories('/proc') | ForEach-Object { [IO.Path]::GetFileName($_) } | Where-Object { $_ -match '^\d+$' })
        $namespaces = @(foreach ($process in $processes) {
                foreach ($kind in 'net', 'mnt', 'pid', 'uts', 'ipc') {
                    $target = try { [IO.FileInfo]::new("/proc/$process/ns/$kind").LinkTarget } catch { $null }
                    if ($target) { $target }
                }
            })
        @(
            $namespaces
            [IO.File]::ReadAllLines('/proc/self/mounts')
            [IO.Directory]::GetDirectories('/sys/class/net')
            foreach ($directory in '/run', '/dev/shm') { [IO.Directory]::GetFileSystemEntries($directory) }
            # PowerShell and .NET keep files of their own in /tmp; the lab's are told by their names.
            [IO.Directory]::GetFileSystemEntries('/tmp', 'lab*')
        ) | Sort-Unique
    }

    function Sort-Unique {
        $set = [Collections.Generic.SortedSet[string]]::new([StringComparer]::Ordinal)
        foreach ($item in $input) { [void] $set.Add([string] $item) }
        $set -join "`n"
    }

    # A directory that enclosures share with us, to hear from them.
    $shared = [IO.Directory]::CreateDirectory([IO.Path]::Combine([IO.Path]::GetTempPath(), "shared-$([guid]::NewGuid().ToString('N'))")).FullName

    function Start-Enclosure([string[]] $Command) {
        $start = [Diagnostics.ProcessStartInfo]::new($enter)
        foreach ($argument in $Command) { $start.ArgumentList.Add($argument) }
        $start.Environment['FCTRANS_LAB_KEEP'] = $shared
        [Diagnostics.Process]::Start($start)
    }

    # A whole lab in an enclosure of its own: it writes the file NAME when it stands, and then waits to be ended.
    function Start-NestedLab([string] $Name) {
        $script = @"
Import-Module '$module'
`$lab = New-Lab
`$labHost = New-LabHost -Name '$Name'
`$guest = Start-LabGuest -LabHost `$labHost -Name vm -Memory 256MB
[void] (Invoke-LabGuest -Guest `$guest -Command 'fill 32')
[IO.File]::WriteAllText('$shared/$Name.part', "`$(`$labHost.Address) `$((Invoke-LabHost -LabHost `$labHost -Command hostname).Output.Trim())")
[IO.File]::Move('$shared/$Name.part', '$shared/$Name')
while (-not [IO.File]::Exists('$shared/$Name.verify')) { [void] [Threading.Thread]::CurrentThread.Join(20) }
[IO.File]::WriteAllText('$shared/$Name.part', "`$((Invoke-LabGuest -Guest `$guest -Command verify).errors)")
[IO.File]::Move('$shared/$Name.part', '$shared/$Name.verified')
[Threading.Thread]::CurrentThread.Join()
"@
        Start-Enclosure @([Environment]::ProcessPath, '-NoProfile', '-NonInteractive', '-Command', $script)
    }
}

AfterAll {
    [IO.Directory]::Delete($shared, $true)
}

Describe 'An enclosure' {
    It 'passes on how its command ended' {
        & $enter sh -c 'exit 7'
        $LASTEXITCODE | Should -Be 7
        & $enter sh -c 'kill -9 $$'
        $LASTEXITCODE | Should -Be 137
        & $enter /no/such/program 2>$null
        $LASTEXITCODE | Should -Be 127
    }

    It 'has a network, processes and temporary files of its own, and the repository' {
        [IO.File]::WriteAllText("$shared/../lab-outside", 'x')
        try {
            $seen = & $enter sh -c "echo `$`$; ls /sys/class/net; ls /tmp/lab-outside 2>&1 | grep -c 'No such'; echo x >/tmp/lab-inside; test -x $enter && echo reachable; echo `$FCTRANS_LAB"
            $seen | Should -Be @('2', 'lo', '1', 'reachable', '1')
            [IO.File]::Exists('/tmp/lab-inside') | Should -BeFalse
        }
        finally { [IO.File]::Delete("$shared/../lab-outside") }
    }

    It 'ends what its command left running' {
        $before = Get-Trace
        & $enter sh -c 'setsid busybox sleep 1000 >/dev/null 2>&1 & mount -t tmpfs none /mnt; ip link add left type bridge; echo x >/dev/shm/left'
        $LASTEXITCODE | Should -Be 0
        Get-Trace | Should -Be $before
    }

    It 'lets its command end in its own way at SIGTERM' {
        $enclosure = Start-Enclosure @('bash', '-c', "trap 'echo orderly >$shared/ended; exit 3' TERM; echo x >$shared/waiting; while :; do read -t 1 <> <(:); done")
        Wait-Until { [IO.File]::Exists("$shared/waiting") } 'the command waits'
        & kill -TERM $enclosure.Id
        $enclosure.WaitForExit(20000) | Should -BeTrue
        $enclosure.ExitCode | Should -Be 3
        [IO.File]::ReadAllText("$shared/ended") | Should -Be "orderly`n"
    }
}

Describe 'Two labs side by side' -Tag 'Slow' {
    It 'have the same addresses, do not meet, and leave nothing when killed' {
        $before = Get-Trace
        $one = Start-NestedLab 'one'
        $two = Start-NestedLab 'two'
        try {
            Wait-Until { ([IO.File]::Exists("$shared/one") -or $one.HasExited) -and ([IO.File]::Exists("$shared/two") -or $two.HasExited) } 'both labs stand' 180
            [IO.File]::ReadAllText("$shared/one") | Should -Be '198.18.0.2 one'
            [IO.File]::ReadAllText("$shared/two") | Should -Be '198.18.0.2 two'
            Get-Trace | Should -Not -Be $before

            $one.Kill()
            $one.WaitForExit()
            [IO.File]::WriteAllText("$shared/two.verify", '')
            Wait-Until { [IO.File]::Exists("$shared/two.verified") -or $two.HasExited } 'the other lab works on'
            [IO.File]::ReadAllText("$shared/two.verified") | Should -Be '0'
        }
        finally {
            foreach ($lab in $one, $two) {
                if (-not $lab.HasExited) { $lab.Kill() }
                $lab.WaitForExit()
            }
        }

        # The kernel ends the processes of a killed enclosure in the background.
        Wait-Until { (Get-Trace) -eq $before } 'nothing is left of either lab' 30
    }
}

Describe 'The lab in PowerShell' {
    BeforeAll {
        Import-Module $module
        $before = Get-Trace
        $lab = New-Lab
        $labHost = New-LabHost -Name alone -ShmSize 1GB
    }

    AfterAll { Remove-Lab }

    It 'reaches a host by SSH with the key and the known host key it offers' {
        $said = & ssh -i $lab.KeyPath -o "UserKnownHostsFile=$($lab.KnownHostsPath)" -o StrictHostKeyChecking=yes -o BatchMode=yes "root@$($labHost.Address)" hostname
        $said | Should -Be 'alone'
    }

    It 'tells how a command on a host ended' {
        $result = Invoke-LabHost -LabHost $labHost -Command 'echo out; echo err >&2; exit 5'
        $result.ExitCode | Should -Be 5
        $result.Output | Should -Be "out`n"
        $result.Error | Should -Be "err`n"
    }

    It 'says what is wrong with a name, a second lab, a bad link' {
        { New-LabHost -Name 'a b' } | Should -Throw -ErrorId 'LabFailed,FCtrans.Lab.Cmdlets.NewLabHostCommand'
        { New-LabHost -Name alone } | Should -Throw -ExpectedMessage '*already*'
        { New-Lab } | Should -Throw -ExpectedMessage '*already*'
        { Set-LabLink -LabHost $labHost -Bandwidth 5 } | Should -Throw -ExpectedMessage '*100 kbit*'
    }

    It 'gives the oracle''s answers as objects' {
        $guest = Start-LabGuest -LabHost $labHost -Name vm -Memory 256MB
        (Invoke-LabGuest -Guest $guest -Command 'fill 16').pages | Should -Be 4096
        (Invoke-LabGuest -Guest $guest -Command 'run rate=10').rate | Should -Be 10
        $stat = Get-LabGuestStat -Guest $guest -FullPass
        $stat.errors | Should -Be 0
        $stat.passes | Should -BeGreaterThan 1
        { Invoke-LabGuest -Guest $guest -Command 'no-such' } | Should -Throw -ExpectedMessage '*no such command*'
        Stop-LabGuest -Guest $guest
    }

    It 'leaves nothing when it is removed' {
        Remove-Lab
        Wait-Until { (Get-Trace) -eq $before } 'nothing is left of the lab' 30
        $labHost.IsRunning | Should -BeFalse
    }
}
