using System.Collections.ObjectModel;
using System.Management.Automation;
using System.Management.Automation.Host;
using System.Security;
using System.Text;

namespace FCtrans.Shell;

/// <summary>
/// Standard streams as the engine wants them: output, warnings, verbose text and debug text on standard output,
/// errors on standard error, progress on standard error and only where that is a terminal.
/// Methods may come from several threads (a background runspace writes too): <see cref="_lock"/> guards the screen.
/// </summary>
internal sealed class ShellScreen : PSHostUserInterface
{
    private const string Reset = "\e[0m";
    private const string Red = "\e[31;1m";
    private const string Yellow = "\e[33;1m";
    private const int ProgressIntervalMilliseconds = 100;

    private readonly Lock _lock = new();
    private readonly ShellRawScreen _raw = new();
    private readonly bool _colour;
    private readonly bool _errorColour;
    private readonly bool _progressTerminal;
    private bool _progressShown;
    private long _progressAt;

    public ShellScreen(bool canAsk)
    {
        CanAsk = canAsk;
        bool plain = Environment.GetEnvironmentVariable("NO_COLOR") is { Length: > 0 } || Environment.GetEnvironmentVariable("TERM") is null or "dumb";
        _colour = !plain && !Console.IsOutputRedirected;
        _errorColour = !plain && !Console.IsErrorRedirected;
        _progressTerminal = !Console.IsErrorRedirected && Environment.GetEnvironmentVariable("TERM") is not (null or "dumb");
    }

    /// <summary>Whether somebody is there to answer.</summary>
    public bool CanAsk { get; }

    public override PSHostRawUserInterface RawUI => _raw;

    public override bool SupportsVirtualTerminal => _colour;

    public override void Write(string value)
    {
        lock (_lock)
        {
            EraseProgress();
            Console.Out.Write(Rendered(value, _colour));
        }
    }

    public override void Write(ConsoleColor foregroundColor, ConsoleColor backgroundColor, string value)
    {
        lock (_lock)
        {
            EraseProgress();
            if (_colour && (int)foregroundColor >= 0)
            {
                Console.ForegroundColor = foregroundColor;
                Console.Out.Write(value);
                Console.ResetColor();
            }
            else
            {
                Console.Out.Write(Rendered(value, _colour));
            }
        }
    }

    public override void WriteLine(string value) => Write(value + "\n");

    public override void WriteErrorLine(string value)
    {
        lock (_lock)
        {
            EraseProgress();
            Console.Out.Flush();
            string text = Rendered(value, _errorColour);
            Console.Error.WriteLine(_errorColour && !text.Contains('\e', StringComparison.Ordinal) ? Red + text + Reset : text);
        }
    }

    public override void WriteWarningLine(string message) => Marked("WARNING: ", message);

    public override void WriteVerboseLine(string message) => Marked("VERBOSE: ", message);

    public override void WriteDebugLine(string message) => Marked("DEBUG: ", message);

    public override void WriteInformation(InformationRecord record)
    {
        // The engine already calls Write for what is meant to be seen; others read the record from the stream.
    }

    public override void WriteProgress(long sourceId, ProgressRecord record)
    {
        if (!_progressTerminal)
        {
            return;
        }

        lock (_lock)
        {
            if (record.RecordType == ProgressRecordType.Completed)
            {
                EraseProgress();
                return;
            }

            long now = Environment.TickCount64;
            if (_progressShown && now - _progressAt < ProgressIntervalMilliseconds)
            {
                return;
            }

            _progressAt = now;
            _progressShown = true;
            Console.Error.Write("\r\e[K" + ProgressLine(record, _raw.Columns - 1));
        }
    }

    public void ClearProgress()
    {
        lock (_lock)
        {
            EraseProgress();
        }
    }

    /// <summary>One line: activity, status, bar, the rest of the time; cut to <paramref name="columns"/>.</summary>
    internal static string ProgressLine(ProgressRecord record, int columns)
    {
        var text = new StringBuilder(record.Activity);
        if (!string.IsNullOrEmpty(record.StatusDescription))
        {
            text.Append(": ").Append(record.StatusDescription);
        }

        if (!string.IsNullOrEmpty(record.CurrentOperation))
        {
            text.Append(" (").Append(record.CurrentOperation).Append(')');
        }

        if (record.PercentComplete >= 0)
        {
            const int width = 20;
            int filled = Math.Min(record.PercentComplete, 100) * width / 100;
            text.Append(" [").Append('#', filled).Append('.', width - filled).Append("] ").Append(record.PercentComplete).Append('%');
        }

        if (record.SecondsRemaining >= 0)
        {
            text.Append(", ").Append(TimeSpan.FromSeconds(record.SecondsRemaining).ToString("g", System.Globalization.CultureInfo.InvariantCulture)).Append(" left");
        }

        text.Replace('\n', ' ').Replace('\r', ' ');
        return text.Length > columns && columns > 0 ? text.ToString(0, columns) : text.ToString();
    }

    public override string ReadLine()
    {
        RequireAnswerer();
        ClearProgress();
        return Console.ReadLine() ?? throw NobodyAnswers();
    }

    public override SecureString ReadLineAsSecureString()
    {
        RequireAnswerer();
        ClearProgress();
        var secret = new SecureString();
        while (true)
        {
            ConsoleKeyInfo key = Console.ReadKey(intercept: true);
            if (key.Key == ConsoleKey.Enter)
            {
                Console.WriteLine();
                secret.MakeReadOnly();
                return secret;
            }

            if (key.Key == ConsoleKey.Backspace)
            {
                if (secret.Length > 0)
                {
                    secret.RemoveAt(secret.Length - 1);
                }
            }
            else if (key.KeyChar >= ' ')
            {
                secret.AppendChar(key.KeyChar);
            }
        }
    }

    public override Dictionary<string, PSObject?> Prompt(string caption, string message, Collection<FieldDescription> descriptions)
    {
        RequireAnswerer();
        Heading(caption, message);
        var answers = new Dictionary<string, PSObject?>();
        foreach (FieldDescription field in descriptions)
        {
            Write(field.Name + ": ");
            object? value;
            if (field.ParameterTypeFullName == typeof(SecureString).FullName)
            {
                value = ReadLineAsSecureString();
            }
            else if (field.ParameterTypeFullName == typeof(PSCredential).FullName)
            {
                WriteLine("");
                value = PromptForCredential("", "", "", "");
            }
            else
            {
                string text = ReadLine();
                value = text.Length == 0 && field.DefaultValue is { } preset ? preset.BaseObject : text;
            }

            answers[field.Name] = value is null ? null : PSObject.AsPSObject(value);
        }

        return answers;
    }

    public override int PromptForChoice(string caption, string message, Collection<ChoiceDescription> choices, int defaultChoice)
    {
        RequireAnswerer();
        Heading(caption, message);
        while (true)
        {
            var line = new StringBuilder();
            for (int i = 0; i < choices.Count; i++)
            {
                (string key, string label) = Hotkey(choices[i].Label);
                line.Append('[').Append(key).Append("] ").Append(label).Append("  ");
            }

            line.Append("[?] Help");
            if (defaultChoice >= 0)
            {
                line.Append(" (default is \"").Append(Hotkey(choices[defaultChoice].Label).Key).Append("\")");
            }

            Write(line.Append(": ").ToString());
            string answer = ReadLine().Trim();
            if (answer.Length == 0 && defaultChoice >= 0)
            {
                return defaultChoice;
            }

            for (int i = 0; i < choices.Count; i++)
            {
                (string key, string label) = Hotkey(choices[i].Label);
                if (answer.Equals(key, StringComparison.OrdinalIgnoreCase) || answer.Equals(label, StringComparison.OrdinalIgnoreCase))
                {
                    return i;
                }
            }

            if (answer == "?")
            {
                foreach (ChoiceDescription choice in choices)
                {
                    WriteLine($"{Hotkey(choice.Label).Key} - {choice.HelpMessage}");
                }
            }
        }
    }

    public override PSCredential PromptForCredential(string caption, string message, string userName, string targetName) =>
        PromptForCredential(caption, message, userName, targetName, PSCredentialTypes.Default, PSCredentialUIOptions.Default);

    public override PSCredential PromptForCredential(string caption, string message, string userName, string targetName, PSCredentialTypes allowedCredentialTypes, PSCredentialUIOptions options)
    {
        RequireAnswerer();
        Heading(caption, message);
        if (string.IsNullOrEmpty(userName))
        {
            Write("User: ");
            userName = ReadLine();
        }

        Write($"Password for user {userName}: ");
        return new PSCredential(userName, ReadLineAsSecureString());
    }

    /// <summary>"Yes to &amp;All" has the key A.</summary>
    internal static (string Key, string Label) Hotkey(string label)
    {
        int mark = label.IndexOf('&', StringComparison.Ordinal);
        string plain = label.Replace("&", "", StringComparison.Ordinal);
        return mark >= 0 && mark + 1 < label.Length ? (label.Substring(mark + 1, 1).ToUpperInvariant(), plain) : (plain, plain);
    }

    private void Heading(string caption, string message)
    {
        if (!string.IsNullOrEmpty(caption))
        {
            WriteLine("");
            WriteLine(caption);
        }

        if (!string.IsNullOrEmpty(message))
        {
            WriteLine(message);
        }
    }

    private void Marked(string mark, string message)
    {
        lock (_lock)
        {
            EraseProgress();
            string text = mark + Rendered(message, _colour);
            Console.Out.WriteLine(_colour ? Yellow + text + Reset : text);
        }
    }

    // The engine's formatter colours table headings whether or not anybody can see colours.
    private static string Rendered(string text, bool colour) => colour || !text.Contains('\e', StringComparison.Ordinal)
        ? text
        : new System.Management.Automation.Internal.StringDecorated(text).ToString(OutputRendering.PlainText);

    private void EraseProgress()
    {
        if (_progressShown)
        {
            _progressShown = false;
            Console.Error.Write("\r\e[K");
        }
    }

    private void RequireAnswerer()
    {
        if (!CanAsk)
        {
            throw NobodyAnswers();
        }
    }

    // PSInvalidOperationException, as pwsh throws it: ShouldProcess turns it into a terminating error of the cmdlet that asked.
    private static PSInvalidOperationException NobodyAnswers() =>
        new("The shell is in non-interactive mode: it cannot ask. Give the answer as a parameter (for a confirmation, -Confirm:$false).");
}
