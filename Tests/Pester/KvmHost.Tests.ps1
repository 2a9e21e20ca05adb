# Connecting: whom we trust, whom the host trusts, what is brought there, and what is said when it does not work.

BeforeAll {
    . ([IO.Path]::Combine($PSScriptRoot, 'LabFixture.ps1'))
    $lab = New-Lab
    $one = New-LabHost -Name one -ShmSize 256MB
    $two = New-LabHost -Name two -ShmSize 256MB
    $ours = @{ KeyFile = $lab.KeyPath; KnownHostsFile = $lab.KnownHostsPath }

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

AfterAll {
    Disconnect-KvmHost *
    Remove-Lab
}

Describe 'Connect-KvmHost' {
    AfterEach {
        Disconnect-KvmHost *
    }

    It 'gives the host with its figures' {
        $kvmHost = Connect-KvmHost $one.Address @ours
        $kvmHost | Should -BeOfType ([object])
        $kvmHost.PSObject.TypeNames[0] | Should -Be 'FCtrans.KvmHost'
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
        $failures[0].FullyQualifiedErrorId | Should -BeLike 'HostUnreachable,*'
        $failures[0].TargetObject | Should -Be '198.18.0.250'
        "$($failures[0].CategoryInfo.Category)" | Should -Be 'ConnectionError'
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

    It 'does nothing with -WhatIf' {
        Connect-KvmHost $one.Address @ours -WhatIf | Should -BeNullOrEmpty
        Get-KvmHost | Should -BeNullOrEmpty
    }

    It 'takes a password' {
        (Connect-KvmHost $one.Address -Credential (New-Credential $lab.Password) -KnownHostsFile $lab.KnownHostsPath).UserName |
            Should -Be 'root'
    }

    It 'says that a password is wrong' {
        { Connect-KvmHost $one.Address -Credential (New-Credential 'wrong') -KnownHostsFile $lab.KnownHostsPath -ErrorAction Stop } |
            Should -Throw -ErrorId 'AuthenticationFailed,*' -ExpectedMessage '*-Credential*'
    }

    It 'says that a key is none, or is not there' {
        { Connect-KvmHost $one.Address -KeyFile $lab.KnownHostsPath -KnownHostsFile $lab.KnownHostsPath -ErrorAction Stop } |
            Should -Throw -ErrorId 'KeyFileUnusable,*'
        { Connect-KvmHost $one.Address -KeyFile /nowhere -KnownHostsFile $lab.KnownHostsPath -ErrorAction Stop } |
            Should -Throw -ErrorId 'KeyFileUnusable,*'
    }

    It 'refuses an unknown host with its fingerprint, unless told to accept it, and remembers it then' {
        $known = [IO.Path]::Combine([IO.Path]::GetTempPath(), "known-$([guid]::NewGuid().ToString('N'))")
        try {
            $failure = { Connect-KvmHost $one.Address -KeyFile $lab.KeyPath -KnownHostsFile $known -ErrorAction Stop } |
                Should -Throw -ErrorId 'HostKeyUnknown,*' -ExpectedMessage '*-AcceptHostKey*' -PassThru
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
            { Connect-KvmHost $one.Address -KeyFile $lab.KeyPath -KnownHostsFile $known -AcceptHostKey -ErrorAction Stop } |
                Should -Throw -ErrorId 'HostKeyChanged,*'
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

    It 'takes a name and a data address for one host only' {
        { Connect-KvmHost $one.Address, $two.Address @ours -Name both } | Should -Throw -ErrorId 'OneHostOnly,*'
        $kvmHost = Connect-KvmHost $one.Address @ours -Name first -DataAddress 198.18.7.7
        "$($kvmHost.Name) $($kvmHost.DataAddress)" | Should -Be 'first 198.18.7.7'
    }
}

Describe 'Get-KvmHost and Disconnect-KvmHost' {
    BeforeAll {
        $first = Connect-KvmHost $one.Address @ours -Name first
        $second = Connect-KvmHost $two.Address @ours -Name second
    }

    It 'finds connected hosts by name and wildcard' {
        @(Get-KvmHost).Name -join ' ' | Should -Be 'first second'
        (Get-KvmHost f*).Name | Should -Be 'first'
        Get-KvmHost x* | Should -BeNullOrEmpty
        { Get-KvmHost third -ErrorAction Stop } | Should -Throw -ErrorId 'HostNotConnected,*'
    }

    It 'asks for figures of now' {
        $before = (Get-KvmHost first).RamDirectoryFreeBytes
        $null = Invoke-OnHost $one 'head -c 32M /dev/zero >/dev/shm/ballast'
        (Get-KvmHost first).RamDirectoryFreeBytes | Should -BeLessOrEqual ($before - 32MB)
        $null = Invoke-OnHost $one 'rm /dev/shm/ballast'
    }

    It 'completes the names of connected hosts' {
        $line = 'Get-KvmHost fi'
        $completed = [Management.Automation.CommandCompletion]::CompleteInput($line, $line.Length, $null)
        $completed.CompletionMatches.CompletionText | Should -Be 'first'
    }

    It 'goes on when the connection was cut and has come back' {
        $null = Invoke-OnHost $two 'for p in $(pgrep sshd); do tr "\0" " " </proc/$p/cmdline | grep -q "^sshd: root" && kill -9 $p; done; true'
        # The first call may still meet the dying connection; the next one opens another.
        Wait-Until { (Get-KvmHost second -ErrorAction SilentlyContinue).IsConnected } 'the host answers again'
    }

    It 'disconnects by object, and what was disconnected can not be used' {
        $gone = Get-KvmHost second
        $gone | Disconnect-KvmHost -WhatIf
        $gone.IsConnected | Should -BeTrue
        $gone | Disconnect-KvmHost
        $gone.IsConnected | Should -BeFalse
        (Get-KvmHost).Name | Should -Be 'first'
        { Get-KvmVm -KvmHost $gone -ErrorAction Stop } | Should -Throw -ErrorId 'HostNotConnected,*'
        { Disconnect-KvmHost second -ErrorAction Stop } | Should -Throw -ErrorId 'HostNotConnected,*'
    }

    It 'says so when no host is connected' {
        Disconnect-KvmHost *
        Get-KvmHost | Should -BeNullOrEmpty
        { Get-KvmVm -ErrorAction Stop } | Should -Throw -ErrorId 'NoHostConnected,*'
        { Get-VmUnusedMemory vm -ErrorAction Stop } | Should -Throw -ErrorId 'NoHostConnected,*'
        { Get-SplitMigration -ErrorAction Stop } | Should -Throw -ErrorId 'NoHostConnected,*'
        { Stop-SplitMigration vm -ErrorAction Stop } | Should -Throw -ErrorId 'NoHostConnected,*'
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
            { Connect-KvmHost near -SshConfigFile $broken -ErrorAction Stop } | Should -Throw -ErrorId 'SshConfigUnusable,*' -ExpectedMessage '*line 2*'
        }
        finally {
            [IO.File]::Delete($broken)
        }
    }
}

Describe 'A user who is not root' {
    BeforeAll {
        $null = Invoke-OnHost $one ("useradd -m -s /bin/sh opsuser && mkdir -p ~opsuser/.ssh && echo 'opsuser ALL=(root) NOPASSWD: ALL' >/etc/sudoers.d/opsuser && " +
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
        { Connect-KvmHost $one.Address @ours -UserName nobody2 -Sudo -ErrorAction Stop } | Should -Throw -ErrorId 'SudoRefused,*' -ExpectedMessage '*NOPASSWD*'
    }
}

Describe 'Test-KvmHost' {
    BeforeAll {
        $kvmHost = Connect-KvmHost $one.Address @ours -Name first
        $checks = @(Test-KvmHost first)
    }

    AfterAll {
        Disconnect-KvmHost *
    }

    It 'gives an object for each check, with a remedy unless it passed' {
        foreach ($name in 'root', 'userfaultfd', 'pagemap-scan', 'ptrace', 'ram-directory', 'qemu', 'memory', 'data-address', 'workers') {
            @($checks | Where-Object Check -EQ $name) | Should -HaveCount 1
        }

        foreach ($check in $checks) {
            $check.PSObject.TypeNames[0] | Should -Be 'FCtrans.KvmHostCheck'
            $check.Result | Should -BeIn 'Passed', 'Warning', 'Failed'
            [bool] $check.Remedy | Should -Be ($check.Result -ne 'Passed')
            $check.HostName | Should -Be 'first'
        }

        ($checks | Where-Object Check -EQ 'data-address').Result | Should -Be 'Passed'
    }

    It 'takes hosts from the pipeline, and a part' {
        @($kvmHost | Test-KvmHost -Part Sub).Check | Should -Not -Contain 'qemu'
        @('first' | Test-KvmHost -Part Main).Check | Should -Contain 'qemu'
        { Test-KvmHost nowhere -ErrorAction Stop } | Should -Throw -ErrorId 'HostNotConnected,*'
    }

    It 'finds an address that the host does not have' {
        $null = Connect-KvmHost $two.Address @ours -Name second -DataAddress 198.18.7.7
        (Test-KvmHost second | Where-Object Check -EQ 'data-address').Result | Should -Be 'Failed'
    }
}

Describe 'Uninstall-KvmHostAgent' {
    BeforeEach {
        $kvmHost = Connect-KvmHost $two.Address @ours -Name second
    }

    AfterAll {
        Disconnect-KvmHost *
    }

    It 'does nothing with -WhatIf' {
        Uninstall-KvmHostAgent second -WhatIf
        $kvmHost.IsConnected | Should -BeTrue
        [IO.File]::Exists($two.PathOf($kvmHost.AgentPath)) | Should -BeTrue
    }

    It 'leaves nothing of FCtrans on the host' {
        $path = $two.PathOf('/var/lib/fctrans')
        (Uninstall-KvmHostAgent second -PassThru).Name | Should -Be 'second'
        Get-KvmHost | Should -BeNullOrEmpty
        [IO.Directory]::Exists($path) | Should -BeFalse
        Invoke-OnHost $two 'ls -d /run/fctrans /dev/shm/fctrans-* 2>/dev/null; true' | Should -BeNullOrEmpty
    }

    It 'brings it again with the next connection' {
        [IO.File]::Exists($two.PathOf($kvmHost.AgentPath)) | Should -BeTrue
    }

    It 'refuses while a VM depends on it, and says which' {
        # A worker's directory as a running main worker has it; the process is this shell's own on that host.
        $id = '0123456789abcdef0123456789abcdef'
        $null = Invoke-OnHost $two "mkdir -p -m 700 /run/fctrans/$id/sub && touch /run/fctrans/$id/sub/ready"
        $null = Invoke-OnHost $two "printf '\012\040$id\020\003\032\005bigvm' >/run/fctrans/$id/sub/spec"
        try {
            $failure = { Uninstall-KvmHostAgent second -ErrorAction Stop } | Should -Throw -ErrorId 'AgentInUse,*' -PassThru
            $failure.Exception.Message | Should -BeLike "*'bigvm'*"
            [IO.File]::Exists($two.PathOf($kvmHost.AgentPath)) | Should -BeTrue
        }
        finally {
            $null = Invoke-OnHost $two "rm -rf /run/fctrans/$id"
        }
    }
}
