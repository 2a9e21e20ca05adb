# Connecting: whom we trust, whom the host trusts, what is brought there, and what is said when it does not work.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, '..', 'StandingLab.ps1'))
    $one, $two = $labHost.one, $labHost.two
    $null = Connect-StandingHost @()

    function New-Credential([string] $Password, [string] $User = 'root') {
        $secure = [Security.SecureString]::new()
        foreach ($character in $Password.ToCharArray()) { $secure.AppendChar($character) }
        [pscredential]::new($User, $secure)
    }

    function Get-Fingerprint($LabHost) {
        $key = [Convert]::FromBase64String($LabHost.HostKey.Split(' ')[1])
        'SHA256:' + [Convert]::ToBase64String([Security.Cryptography.SHA256]::HashData($key)).TrimEnd('=')
    }
}

Describe 'Connect-KvmHost' {
    AfterEach {
        Disconnect-KvmHost *
    }

    It 'gives the host with its figures' {
        $kvmHost = Connect-KvmHost $one.Address @ours
        Assert-Output Connect-KvmHost $kvmHost
        $kvmHost.Name | Should -Be $one.Address
        $kvmHost.IsConnected | Should -BeTrue
        $kvmHost.DataAddress | Should -Be $one.Address
        $kvmHost.HostKeyFingerprint | Should -Be (Get-Fingerprint $one)
        $kvmHost.MemoryTotalBytes | Should -BeGreaterThan 1GB
        $kvmHost.RamDirectoryFreeBytes | Should -BeLessOrEqual 256MB
        @($kvmHost.Capabilities | Where-Object Name -EQ 'userfaultfd') | Should -HaveCount 1
    }

    It 'connects several hosts, from the pipeline, and names one that is not there' {
        $failures = $null
        $hosts = $one.Address, '198.18.0.250', $two.Address |
            Connect-KvmHost @ours -ErrorVariable failures -ErrorAction SilentlyContinue
        @($hosts).Name -join ' ' | Should -Be "$($one.Address) $($two.Address)"
        $failures | Should -HaveCount 1
        Assert-Failure $failures[0] HostUnreachable ConnectionError '198.18.0.250'
    }

    It 'puts the agent there once, and again when somebody changed it' {
        $path = (Connect-KvmHost $one.Address @ours).AgentPath
        $file = $one.PathOf($path)
        $path | Should -Match '^/var/lib/fctrans/agent/\d+\.\d+\.\d+-[0-9a-f]{12}/fctrans-agent$'
        $written = [IO.File]::GetLastWriteTimeUtc($file)
        $null = Connect-KvmHost $one.Address @ours
        [IO.File]::GetLastWriteTimeUtc($file) | Should -Be $written
        $null = Invoke-OnHost $one "mv '$path' '$path.old'; (cat '$path.old'; echo x) >'$path'; rm '$path.old'; chmod 755 '$path'"
        $null = Connect-KvmHost $one.Address @ours
        $staged = [IO.File]::ReadAllBytes([IO.Path]::Combine($root, 'out', 'FCtrans', 'agent', 'linux-x64', 'fctrans-agent'))
        [Convert]::ToHexString([Security.Cryptography.SHA256]::HashData([IO.File]::ReadAllBytes($file))) |
            Should -Be ([Convert]::ToHexString([Security.Cryptography.SHA256]::HashData($staged)))
    }

    It 'tells how it comes on, of each host, and how much of the agent is there' {
        $path = (Connect-KvmHost $one.Address @ours).AgentPath
        $null = Invoke-OnHost $one "rm '$path'"
        $started = Start-Cmdlet Connect-KvmHost (@{ HostName = $one.Address, $two.Address } + $ours)
        Wait-Until { "$($started.Shell.InvocationStateInfo.State)" -eq 'Completed' } 'both are connected'
        $records = @($started.Shell.Streams.Progress | Where-Object ActivityId -GE 4300)
        @($records | Where-Object { $_.Activity -eq $one.Address -and $_.StatusDescription -match '^uploading the agent: \d+%$' }).Count | Should -BeGreaterThan 1
        @($records | Where-Object { $_.Activity -eq $two.Address -and $_.StatusDescription -match '^uploading' }) | Should -HaveCount 0
        foreach ($address in $one.Address, $two.Address) { @($records | Where-Object { $_.Activity -eq $address -and $_.StatusDescription -eq 'connected' }) | Should -HaveCount 1 }
        @($records | Where-Object { $_.StatusDescription -eq '2 of 2' -and $_.PercentComplete -eq 100 }) | Should -HaveCount 1
        Assert-ProgressEnded $records
        $started.Shell.Dispose()
    }

    It 'takes the objects of a list of hosts by their properties' {
        ([pscustomobject] @{ HostName = $one.Address; UserName = 'ignored' } | Connect-KvmHost @ours).Name | Should -Be $one.Address
        ([pscustomobject] @{ ComputerName = $two.Address } | Connect-KvmHost @ours).Name | Should -Be $two.Address
    }

    It 'says with -Verbose what was done on which host, and how long it took' {
        $said = @(Connect-KvmHost $one.Address @ours -Name first -Verbose 4>&1 | Where-Object { $_ -is [Management.Automation.VerboseRecord] }) -join "`n"
        foreach ($what in 'the SSH connection', 'having the agent there', "the host's properties") { $said | Should -Match "first: ${what}: \d[\d.]* (µs|ms|s)" }
    }

    It 'ends at Ctrl+C while the host says nothing, and nothing is connected then' {
        $silent = [Net.Sockets.TcpListener]::new([Net.IPAddress]::Loopback, 0)
        $silent.Start()
        try { Stop-Cmdlet (Start-Cmdlet Connect-KvmHost (@{ HostName = '127.0.0.1'; Port = $silent.LocalEndpoint.Port } + $ours)) }
        finally { $silent.Stop() }
        Get-KvmHost | Should -BeNullOrEmpty
    }

    It 'does nothing with -WhatIf' {
        Connect-KvmHost $one.Address @ours -WhatIf | Should -BeNullOrEmpty
        Get-KvmHost | Should -BeNullOrEmpty
    }

    It 'takes a password' {
        (Connect-KvmHost $one.Address -Credential (New-Credential $lab.Password) -KnownHostsFile $lab.KnownHostsPath).UserName |
            Should -Be 'root'
    }

    It 'says that a password is wrong' {
        $failure = { Connect-KvmHost $one.Address -Credential (New-Credential 'wrong') -KnownHostsFile $lab.KnownHostsPath -ErrorAction Stop } |
            Should -Throw -ExpectedMessage '*-Credential*' -PassThru
        Assert-Failure $failure AuthenticationFailed SecurityError $one.Address
    }

    It 'says that a key is none, or is not there' {
        foreach ($path in $lab.KnownHostsPath, '/nowhere') {
            $failure = { Connect-KvmHost $one.Address -KeyFile $path -KnownHostsFile $lab.KnownHostsPath -ErrorAction Stop } | Should -Throw -PassThru
            Assert-Failure $failure KeyFileUnusable InvalidArgument $one.Address
        }

        $failure = { Connect-KvmHost $one.Address -KeyFile $lab.KeyPath -KnownHostsFile /proc/nowhere/known_hosts -AcceptHostKey -ErrorAction Stop } | Should -Throw -PassThru
        Assert-Failure $failure KnownHostsUnusable InvalidArgument $one.Address
    }

    It 'refuses an unknown host with its fingerprint, unless told to accept it, and remembers it then' {
        $known = [IO.Path]::Combine([IO.Path]::GetTempPath(), "known-$([guid]::NewGuid().ToString('N'))")
        try {
            $failure = { Connect-KvmHost $one.Address -KeyFile $lab.KeyPath -KnownHostsFile $known -ErrorAction Stop } |
                Should -Throw -ExpectedMessage '*-AcceptHostKey*' -PassThru
            Assert-Failure $failure HostKeyUnknown SecurityError $one.Address
            $failure.Exception.Message | Should -BeLike "*$([WildcardPattern]::Escape((Get-Fingerprint $one)))*"
            [IO.File]::Exists($known) | Should -BeFalse
            $null = Connect-KvmHost $one.Address -KeyFile $lab.KeyPath -KnownHostsFile $known -AcceptHostKey
            $null = Connect-KvmHost $one.Address -KeyFile $lab.KeyPath -KnownHostsFile $known
            [IO.File]::ReadAllText($known).Trim() | Should -Be "$($one.Address) $($one.HostKey)"
        }
        finally {
            [IO.File]::Delete($known)
        }
    }

    It 'refuses a changed host key, unless its very fingerprint is given' {
        $known = [IO.Path]::Combine([IO.Path]::GetTempPath(), "known-$([guid]::NewGuid().ToString('N'))")
        try {
            [IO.File]::WriteAllText($known, "$($one.Address) $($two.HostKey)`n")
            $failure = { Connect-KvmHost $one.Address -KeyFile $lab.KeyPath -KnownHostsFile $known -AcceptHostKey -ErrorAction Stop } | Should -Throw -PassThru
            Assert-Failure $failure HostKeyChanged SecurityError $one.Address
            { Connect-KvmHost $one.Address -KeyFile $lab.KeyPath -KnownHostsFile $known -HostKeyFingerprint (Get-Fingerprint $two) -ErrorAction Stop } |
                Should -Throw -ErrorId 'HostKeyChanged,*'
            (Connect-KvmHost $one.Address -KeyFile $lab.KeyPath -KnownHostsFile $known -HostKeyFingerprint (Get-Fingerprint $one)).IsConnected |
                Should -BeTrue
            [IO.File]::ReadAllText($known).Trim() | Should -Be "$($one.Address) $($one.HostKey)"
        }
        finally {
            [IO.File]::Delete($known)
        }
    }

    It 'refuses a revoked host key, whatever is said' {
        $known = [IO.Path]::Combine([IO.Path]::GetTempPath(), "known-$([guid]::NewGuid().ToString('N'))")
        try {
            [IO.File]::WriteAllText($known, "@revoked * $($one.HostKey)`n")
            foreach ($said in @{ AcceptHostKey = $true }, @{ HostKeyFingerprint = Get-Fingerprint $one }) {
                $failure = { Connect-KvmHost $one.Address -KeyFile $lab.KeyPath -KnownHostsFile $known @said -ErrorAction Stop } | Should -Throw -PassThru
                Assert-Failure $failure HostKeyRevoked SecurityError $one.Address
            }
        }
        finally {
            [IO.File]::Delete($known)
        }
    }

    It 'takes a name and a data address for one host only' {
        Assert-Failure ({ Connect-KvmHost $one.Address, $two.Address @ours -Name both } | Should -Throw -PassThru) OneHostOnly InvalidArgument "$($one.Address) $($two.Address)"
        $kvmHost = Connect-KvmHost $one.Address @ours -Name first -DataAddress 198.18.7.7
        "$($kvmHost.Name) $($kvmHost.DataAddress)" | Should -Be 'first 198.18.7.7'
    }
}

Describe 'Connect-KvmHost with an SSH configuration' {
    BeforeAll {
        $config = [IO.Path]::Combine([IO.Path]::GetTempPath(), "config-$([guid]::NewGuid().ToString('N'))")
        [IO.File]::WriteAllText($config, @"
Host near far
    IdentityFile $($lab.KeyPath)
    UserKnownHostsFile $($lab.KnownHostsPath)
Host near
    HostName $($one.Address)
Host far
    HostName $($two.Address)
    ProxyJump near
"@)
    }

    AfterAll {
        [IO.File]::Delete($config)
    }

    AfterEach {
        Disconnect-KvmHost *
    }

    It 'finds address, key and known hosts there' {
        $kvmHost = Connect-KvmHost near -SshConfigFile $config
        "$($kvmHost.Name) $($kvmHost.DataAddress)" | Should -Be "near $($one.Address)"
    }

    It 'goes through a jump host' {
        $kvmHost = Connect-KvmHost far -SshConfigFile $config
        $kvmHost.DataAddress | Should -Be $two.Address
        # The host sees the jump host, not us.
        Invoke-OnHost $two 'ss -Htn state established sport = :22 | tr -s " " | cut -d" " -f4' | Should -BeLike "*$($one.Address)*"
    }

    It 'completes names from it and from the known hosts' {
        $line = "Connect-KvmHost -SshConfigFile '$config' -KnownHostsFile '$($lab.KnownHostsPath)' -HostName "
        $names = @([Management.Automation.CommandCompletion]::CompleteInput($line, $line.Length, $null).CompletionMatches.ListItemText)
        foreach ($name in 'near', 'far', $one.Address) { $names | Should -Contain $name }
        $names | Should -Not -Contain 'near far'
    }

    It 'says what is wrong with it' {
        $broken = "$config.broken"
        [IO.File]::WriteAllText($broken, "Host near`
    Port none`
")
        try {
            Assert-Failure ({ Connect-KvmHost near -SshConfigFile $broken -ErrorAction Stop } | Should -Throw -ExpectedMessage '*line 2*' -PassThru) SshConfigUnusable InvalidArgument near
        }
        finally {
            [IO.File]::Delete($broken)
        }
    }
}

Describe 'A user who is not root' {
    BeforeAll {
        # The lab that stands is no root's only: a second run of this file finds the users there.
        $null = Invoke-OnHost $one ("id opsuser >/dev/null 2>&1 && exit 0; useradd -m -s /bin/sh opsuser && mkdir -p ~opsuser/.ssh && echo 'opsuser ALL=(root) NOPASSWD: ALL' >/etc/sudoers.d/opsuser && " +
            "useradd -m -s /bin/sh nobody2 && sed -i 's/^\(opsuser\|nobody2\):!/\1:*/' /etc/shadow")
    }

    AfterEach {
        Disconnect-KvmHost *
    }

    It 'may do everything with -Sudo' {
        $kvmHost = Connect-KvmHost $one.Address @ours -UserName opsuser -Sudo
        "$($kvmHost.UserName) $($kvmHost.DataAddress)" | Should -Be "opsuser $($one.Address)"
        $kvmHost.AgentPath | Should -BeLike '/var/lib/fctrans/*'
        (Test-KvmHost $kvmHost | Where-Object Check -EQ root).Result | Should -Be 'Passed'
    }

    It 'is told without -Sudo that this is not enough' {
        $kvmHost = Connect-KvmHost $one.Address @ours -UserName opsuser
        $check = Test-KvmHost $kvmHost | Where-Object Check -EQ root
        "$($check.Result) $($check.Remedy)" | Should -BeLike 'Failed *-Sudo*'
    }

    It 'is told when sudo refuses' {
        $failure = { Connect-KvmHost $one.Address @ours -UserName nobody2 -Sudo -ErrorAction Stop } | Should -Throw -ExpectedMessage '*NOPASSWD*' -PassThru
        Assert-Failure $failure SudoRefused SecurityError $one.Address
    }
}
