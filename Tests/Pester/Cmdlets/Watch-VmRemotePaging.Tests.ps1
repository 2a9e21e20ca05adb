# Remote paging, live.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $split = Get-StandingSplit
}

Describe 'Watch-VmRemotePaging' {
    It 'gives an object for each interval where the output is no terminal, by name, wildcard and object' {
        $samples = @(Watch-VmRemotePaging paged -Interval 0.1 -Count 2)
        Assert-Output Watch-VmRemotePaging $samples
        $samples | Should -HaveCount 2
        $samples[1].Time | Should -BeGreaterThan $samples[0].Time
        "$($samples[1].VM) $($samples[1].State)" | Should -Be 'paged paging'
        foreach ($same in (Watch-VmRemotePaging p* -Interval 0.1 -Count 1), (Get-KvmVm paged | Watch-VmRemotePaging -Interval 0.1 -Count 1)) { $same.VM | Should -Be 'paged' }
        Watch-VmRemotePaging x* -Interval 0.1 -Count 1 | Should -BeNullOrEmpty
    }

    It 'names a VM that is not split, and does not wait for it' {
        Assert-Failure ({ Watch-VmRemotePaging shared -ErrorAction Stop } | Should -Throw -PassThru) MigrationNotFound ObjectNotFound shared
        Watch-VmRemotePaging shared -ErrorAction SilentlyContinue | Should -BeNullOrEmpty
    }

    It 'shows each interval when it is over, also where the output goes into a pipe' {
        # It goes on for ever: what is shown at its end only would never come.
        $lines = Read-Redirected main 'Watch-VmRemotePaging paged -Interval 0.1' '^\d\d:\d\d:\d\d paged +paging '
        @($lines | Where-Object { $_ }) | Should -HaveCount 3
        @($lines | Where-Object { $_ })[0] | Should -Match '^Time +VM +State +Resident +Remote +In/s +Out/s +Fresh/s +Median$'
    }

    It 'takes hosts from the pipeline: the VMs there' {
        $main, $source = Get-KvmHost main, source
        ($main | Watch-VmRemotePaging -Interval 0.1 -Count 1).VM | Should -Be 'paged'
        $source | Watch-VmRemotePaging -Interval 0.1 -Count 1 | Should -BeNullOrEmpty
    }

    It 'draws what fits the window, and counts the rest' {
        $screen = (Get-Command Watch-VmRemotePaging).ImplementingType.Assembly.GetType('FCtrans.Commands.PagingScreen', $true)
        $lay = $screen.GetMethod('Lay', [Reflection.BindingFlags] 'Static, NonPublic')
        $blocks = [string[][]]::new(3)
        foreach ($i in 0..2) { $blocks[$i] = "vm$i", ('x' * 100), 'c', 'd' }
        foreach ($width in 10, 80, 200) {
            foreach ($height in 1..20) {
                $lines = @($lay.Invoke($null, @('heading', $blocks, $width, $height)))
                $lines.Count | Should -BeLessOrEqual $height
                # The last column stays free.
                foreach ($line in $lines) { $line.Length | Should -BeLessThan $width }
                $shown = @($lines | Where-Object { $_ -like 'vm*' }).Count
                $shown | Should -Be ([Math]::Max(0, [Math]::Floor(($height - ($height -lt 16 ? 2 : 1)) / 5)))
                if ($shown -eq 3) { $lines -join ' ' | Should -Not -Match '…' }
                elseif ($shown) { $lines[-1] | Should -Be "… $(3 - $shown) more" }
                $lines[0] | Should -Be 'heading'
            }
        }
    }

    It 'draws at once in a terminal, as wide as that, and ends at Ctrl+C' {
        if (-not [IO.File]::Exists('/usr/bin/script')) { Set-ItResult -Skipped -Because 'script(1), which makes terminals, is not there; Debian has it in bsdutils' }
        # The first interval would be over in an hour.
        $watch = "Import-Module '$root/out/FCtrans/FCtrans.psd1'; `$null = Connect-KvmHost '$($labHost.main.Address)' -KeyFile '$($lab.KeyPath)' -KnownHostsFile '$($lab.KnownHostsPath)'; Watch-VmRemotePaging paged -Interval 3600"
        $file = [IO.Path]::Combine([IO.Directory]::CreateTempSubdirectory('watch-').FullName, 'watch.ps1')
        [IO.File]::WriteAllText($file, $watch)
        $start = [Diagnostics.ProcessStartInfo]::new('/usr/bin/script')
        foreach ($argument in '-q', '-e', '-f', '-c', "stty cols 50 rows 12; exec '$([Environment]::ProcessPath)' -NoProfile -File '$file'", '/dev/null') { $start.ArgumentList.Add($argument) }
        $start.Environment['TERM'] = 'xterm'
        $null = $start.Environment.Remove('NO_COLOR')
        $start.RedirectStandardInput = $true
        $start.RedirectStandardOutput = $true
        $process = [Diagnostics.Process]::Start($start)
        try {
            $text = [Text.StringBuilder]::new()
            $buffer = [char[]]::new(4096)
            $read = { $count = $process.StandardOutput.ReadAsync($buffer, 0, $buffer.Length); if (-not $count.Wait(60000)) { throw "Nothing came for 60 s after: $text" }; $null = $text.Append($buffer, 0, $count.Result); $count.Result }
            do { if (-not (& $read)) { throw "It ended with: $text" } } until ("$text" -match '(?s)the guest waits.*\e\[J')
            # Ctrl+C, as the keyboard sends it.
            $process.StandardInput.Write([char] 3)
            $process.StandardInput.Flush()
            while (& $read) { }
            $process.WaitForExit(60000) | Should -BeTrue
        }
        finally {
            if (-not $process.HasExited) { $process.Kill() }
            [IO.Directory]::Delete([IO.Path]::GetDirectoryName($file), $true)
        }

        "$text" | Should -Match '(?s)\e\[\?1049h.*\e\[H.*paged \(paging\).*a second is known after.*\e\[J'
        foreach ($line in ([regex]::Match("$text", '(?s)\e\[H(.*)\e\[J').Groups[1].Value -split '\r+\n')) { ($line -replace '\e\[K').Length | Should -BeLessThan 50 }
    }

    It 'goes on until Ctrl+C' {
        $started = Start-Cmdlet Watch-VmRemotePaging @{ VM = 'paged'; Interval = 0.1 }
        Wait-Until { $started.Output.Count -ge 3 } 'two intervals are over'
        Stop-Cmdlet $started
    }

    It 'ends at Ctrl+C while a host does not answer' {
        Assert-StopsWhileWaiting sub Watch-VmRemotePaging @{ KvmHost = 'sub' }
    }

    It 'completes VMs and hosts' {
        Get-Completion 'Watch-VmRemotePaging pag' | Should -Be 'paged'
        Get-Completion 'Watch-VmRemotePaging -KvmHost m' | Should -Be 'main'
    }
}
