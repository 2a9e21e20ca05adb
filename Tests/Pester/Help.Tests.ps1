# Get-Help: every cmdlet and parameter is described, and the examples are ones that PowerShell understands.

BeforeDiscovery {
    $root = [IO.Path]::GetFullPath([IO.Path]::Combine($PSScriptRoot, '..', '..'))
    Import-Module ([IO.Path]::Combine($root, 'out', 'FCtrans', 'FCtrans.psd1'))
    $cmdlets = @((Get-Module FCtrans).ExportedCmdlets.Keys)
    $pages = @([IO.Path]::Combine($root, 'README.md')) + @([IO.Directory]::GetFiles([IO.Path]::Combine($root, 'docs'), '*.md')) +
        @([IO.Directory]::GetFiles([IO.Path]::Combine($root, 'docs', 'howto'), '*.md')) | ForEach-Object { $_.Substring($root.Length + 1) }
}

BeforeAll {
    $root = [IO.Path]::GetFullPath([IO.Path]::Combine($PSScriptRoot, '..', '..'))
    Import-Module ([IO.Path]::Combine($root, 'out', 'FCtrans', 'FCtrans.psd1'))
    $common = @([Management.Automation.PSCmdlet]::CommonParameters) + @([Management.Automation.PSCmdlet]::OptionalCommonParameters)

    Import-Module ([IO.Path]::Combine($root, 'out', 'FCtrans.Lab', 'FCtrans.Lab.psd1'))

    <# PowerShell parses it, and our cmdlets have the parameters that it gives them; a mention need not say of what value. #>
    function Assert-Understood([string] $Code, [switch] $Mention) {
        $failures = $null
        $ast = [Management.Automation.Language.Parser]::ParseInput($Code, [ref] $null, [ref] $failures)
        if ($failures) { throw "'$Code': $($failures[0].Message)" }
        foreach ($call in $ast.FindAll({ $args[0] -is [Management.Automation.Language.CommandAst] }, $true)) {
            $called = $call.GetCommandName()
            if (-not $called) { continue }
            if (-not (Get-Command $called -Module FCtrans, FCtrans.Lab -ErrorAction Ignore)) {
                if ($called -match '-(Kvm|Vm|SplitMigration|Lab)') { throw "'$Code': there is no $called." }
                continue
            }

            $binding = [Management.Automation.Language.StaticParameterBinder]::BindCommand($call, $true)
            foreach ($wrong in $binding.BindingExceptions.GetEnumerator()) {
                if ($Mention -and $wrong.Value.BindingException.ErrorId -eq 'MissingArgument') { continue }
                throw "'$Code': $($wrong.Key): $($wrong.Value.BindingException.Message)"
            }
        }
    }

    function Get-Text($Description) { @($Description | ForEach-Object { $_.Text }) -join ' ' }
}

Describe 'The help of <_>' -ForEach $cmdlets {
    BeforeAll {
        $name = $_
        $help = Get-Help $name -Full
    }

    It 'has a synopsis and a description' {
        $help.Synopsis | Should -Not -BeNullOrEmpty
        $help.Synopsis | Should -Not -BeLike "*$name*"
        (Get-Text $help.Description).Length | Should -BeGreaterThan 80
    }

    It 'describes each parameter' {
        $described = @($help.Parameters.Parameter)
        foreach ($parameter in @((Get-Command $name).Parameters.Values | Where-Object { $common -notcontains $_.Name })) {
            $found = @($described | Where-Object Name -EQ $parameter.Name)
            if ($found.Count -ne 1 -or -not (Get-Text $found[0].Description)) { throw "-$($parameter.Name) is not described." }
        }
    }

    It 'has three examples or more, of which each is understood' {
        $examples = @($help.Examples.Example)
        $examples.Count | Should -BeGreaterOrEqual 3
        foreach ($example in $examples) {
            Assert-Understood $example.Code
            $example.Code | Should -BeLike "*$name*"
        }
    }

    It 'has a page of its own in docs/reference that says the same' {
        $page = [IO.File]::ReadAllText([IO.Path]::Combine($root, 'docs', 'reference', "$name.md"))
        $page | Should -BeLike "*$([WildcardPattern]::Escape($help.Synopsis))*"
        foreach ($example in @($help.Examples.Example)) { $page.Contains($example.Code) | Should -BeTrue }
    }

    It 'leads to cmdlets and topics that exist' {
        foreach ($link in @($help.RelatedLinks.NavigationLink.LinkText)) {
            if ($link -like 'about_*') { [IO.File]::Exists([IO.Path]::Combine($root, 'out', 'FCtrans', 'en-US', "$link.help.txt")) | Should -BeTrue }
            else { (Get-Command $link -ErrorAction Ignore).Name | Should -Be $link }
        }
    }
}

Describe 'The reference pages' {
    It 'describe all that a result has, and what is in it' {
        $reference = @([IO.Directory]::GetFiles([IO.Path]::Combine($root, 'docs', 'reference'), '*.md') | ForEach-Object { [IO.File]::ReadAllText($_) })
        foreach ($type in (Get-Command Get-KvmVm).ImplementingType.Assembly.GetExportedTypes()) {
            if ($type.Namespace -ne 'FCtrans') { continue }
            $pages = @($reference | Where-Object { $_ -match "(?m)^(``(FCtrans\.)?$($type.Name)``: |### $($type.Name)$)" })
            if (-not $pages) { throw "No page describes $($type.Name)." }
            $parts = $type.IsEnum ? [Enum]::GetNames($type) : $type.GetProperties().Name
            foreach ($part in $parts) {
                if ($pages[0] -notmatch "(?m)^(\| ``$part`` \| \w+(\[\])? \| \S|- ``$part``: \S)") { throw "No page describes $($type.Name).$part." }
            }
        }
    }
}

Describe 'about_FCtrans' {
    It 'is found' {
        "$(Get-Help about_FCtrans)" | Should -BeLike '*split migration*'
    }
}

Describe 'The page <_>' -ForEach $pages {
    BeforeAll {
        $path = [IO.Path]::Combine($root, $_)
        $text = [IO.File]::ReadAllText($path)
    }

    It 'has commands that are understood' {
        # Indented blocks, of lists, too.
        foreach ($block in [regex]::Matches($text, '(?ms)^( *)```powershell\r?\n(.*?)^\1```')) { Assert-Understood $block.Groups[2].Value }
        # And what stands in the text: `Get-KvmVm bigvm`.
        foreach ($words in [regex]::Matches(($text -replace '(?ms)^ *```.*?^ *```'), '`\(?([A-Z][a-z]+-(?:Kvm|Vm|SplitMigration)[^`]*)`')) {
            Assert-Understood $words.Value.Trim('`').Replace('\|', '|') -Mention
        }
    }

    It 'leads to pages that are there' {
        foreach ($link in [regex]::Matches(($text -replace '(?ms)^ *```.*?^ *```'), '\]\((?!https?:)([^)#]+)')) {
            $target = [IO.Path]::Combine([IO.Path]::GetDirectoryName($path), $link.Groups[1].Value)
            if (-not ([IO.File]::Exists($target) -or [IO.Directory]::Exists($target))) { throw "There is no $($link.Groups[1].Value)." }
        }
    }
}
